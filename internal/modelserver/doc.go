// Package modelserver is a scripted model server. It speaks the protocols between
// agent programs and their models, on 127.0.0.1, so that tests can drive every real
// program exactly and without a network.
//
//	POST /v1/chat/completions                          OpenAI chat completions
//	POST /v1/responses                                 OpenAI responses
//	POST /v1/messages                                  Anthropic messages
//	POST /v1beta/models/MODEL:generateContent          Gemini
//	POST /v1beta/models/MODEL:streamGenerateContent    Gemini
//
// All of them work with and without streaming, and with each protocol's own form of
// errors. Lists of models and token counts are answered too.
//
// # Scripts
//
// The [Handler] of the server decides what the model answers. Without a handler,
// the last user message of the conversation is the script. A line that starts with
// one of these words belongs to the script. Other lines do not, so a script can be
// embedded in text.
//
//	@say TEXT               a turn of the model that says TEXT; \n starts a new line
//	@tool NAME {JSON}       a turn that calls a tool; one that takes text gets the rest
//	                        of the line, where \n starts a new one
//	@also NAME {JSON}       one more tool call in the turn of the line before
//	@error STATUS TEXT      a turn that is refused with this HTTP status
//	@hang TEXT              a turn that says TEXT (or nothing) and then never ends
//	@mute                   a turn that gets no answer, not even a header
//	@cut TEXT               a turn whose connection breaks after TEXT
//
// These lines come before one of the lines above and modify its turn:
//
//	@sleep 2s               wait before the first byte
//	@slow 20 100ms          send the text in 20 pieces, 100 ms apart
//	@think TEXT             reasoning before the answer
//	@text TEXT              text before the tool calls
//	@usage 1000 20          input and output tokens, instead of an estimate
//
// This line may stand anywhere:
//
//	@key NAME               names the conversation: [Request.Key]
//
// A script plays one turn for every request that brings the results of the tools.
// The server finds the turn by counting the assistant's messages after the script.
// So it keeps no state, and a repeated request gets the same answer again. The
// exceptions are
//
//	@error STATUS times=2 retry-after=3 TEXT
//	@hang times=1 TEXT
//	@mute times=1
//	@cut times=1 TEXT
//
// These apply only to the first attempts of a request, as many as times says. Later
// attempts are answered by the next line. With retry-after, the refused client is
// told to wait that many seconds.
//
// An error after a @text is sent in the stream, after the text, like a provider
// that fails in the middle of an answer.
//
// ${re:REGEXP} in a text or in JSON is replaced by the last match in the results of
// tools, or by its first group if it has one. Scripts use it for ids that tools
// created.
//
// After its last turn, a script says "script done". A user message without a script
// is answered with "echo: " and its beginning, a request for a title with "Scripted
// title". A script with a mistake is refused with status 400 and a sentence that
// names the line.
package modelserver
