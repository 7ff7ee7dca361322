// Package modelserver is a scripted model server on 127.0.0.1. It implements the protocols
// between agent programs and their models, so that tests can control real programs exactly
// and without a network.
//
//	POST /v1/chat/completions                          OpenAI chat completions
//	POST /v1/responses                                 OpenAI responses
//	POST /v1/messages                                  Anthropic messages
//	POST /v1beta/models/MODEL:generateContent          Gemini
//	POST /v1beta/models/MODEL:streamGenerateContent    Gemini
//
// All endpoints work with and without streaming. Errors are in the format of the respective
// protocol. The server also answers requests for lists of models and for token counts.
//
// # Scripts
//
// The [Handler] of the server determines the model's answers. Without a handler, the last
// user message of the conversation is the script. A line that starts with one of the
// following words belongs to the script. Other lines are ignored, so a script can be embedded
// in text.
//
//	@say TEXT               a turn of the model that says TEXT; \n starts a new line
//	@tool NAME {JSON}       a turn that calls a tool; a tool that takes text gets the
//	                        rest of the line; \n starts a new line
//	@also NAME {JSON}       another tool call in the same turn as the line before
//	@error STATUS TEXT      a turn that is refused with this HTTP status
//	@hang TEXT              a turn that says TEXT (or nothing) and then never ends
//	@mute                   a turn that gets no answer, not even a header
//	@cut TEXT               a turn whose connection is cut after TEXT
//
// The following lines come before one of the lines above and modify its turn:
//
//	@sleep 2s               wait before the first byte
//	@slow 20 100ms          send the text in 20 pieces, 100 ms apart
//	@think TEXT             reasoning before the answer
//	@text TEXT              text before the tool calls
//	@usage 1000 20          input and output tokens, instead of an estimate
//
// The following line can appear anywhere:
//
//	@key NAME               sets the name of the conversation: [Request.Key]
//
// A script plays one turn for each request that brings new tool results. The server finds the
// turn by counting the assistant's messages after the script, so the server needs no state for
// a script, and a repeated request gets the same answer again. The following lines are
// exceptions:
//
//	@error STATUS times=2 retry-after=3 TEXT
//	@hang times=1 TEXT
//	@mute times=1
//	@cut times=1 TEXT
//
// With times=N, a line applies only to the first N attempts of a request. Later attempts are
// answered by the next line. With retry-after=N, the refusal asks the client to wait N
// seconds. With retry-date=N, it asks the client to wait until a date that is N seconds away.
//
// If the status is not enough to describe the failure, @error can have one of the following
// options. The refusal then has the codes, types and headers that providers use. If there is no
// TEXT, the refusal also has the message that providers use.
//
//	@error 429 reason=usage-limit reset=5400    the usage limit of a plan; it is reset in 5400 s
//	@error 429 reason=quota                     a quota or the credit is used up
//	@error 503 reason=overload                  the model has no capacity
//	@error 401 reason=key                       the key is not valid
//	@error 404 reason=model                     the model does not exist
//	@error 400 reason=too-long                  the input is too long
//
// If @text comes before @error, the server sends the text and then the error in the stream.
// This simulates a provider that fails in the middle of an answer. With in-stream=1, the error
// is sent in the stream even without text.
//
// ${re:REGEXP} in text or in JSON is replaced with the last match in the tool results. If the
// expression has a group, the first group of that match is inserted. Scripts use this for ids
// that tools have created.
//
// After the last turn of a script, the answer is "script done". A user message without a
// script is answered with "echo: " and the beginning of the message. A request for a title is
// answered with "Scripted title". A script with a mistake is refused with status 400 and a
// message that names the line.
package modelserver
