// Package modelserver is a scripted model server: it speaks the protocols that
// agent programs speak to their models, on 127.0.0.1, so that every real program
// can be driven without a network and exactly.
//
//	POST /v1/chat/completions                          OpenAI chat completions
//	POST /v1/responses                                 OpenAI responses
//	POST /v1/messages                                  Anthropic messages
//	POST /v1beta/models/MODEL:generateContent          Gemini
//	POST /v1beta/models/MODEL:streamGenerateContent    Gemini
//
// streaming and not, with each protocol's own form of errors. Lists of models and
// counts of tokens are answered too.
//
// # Scripts
//
// What the model answers is decided by the [Handler] of the server, or, without
// one, by the conversation itself: its last user message is the script. A line
// that begins with one of these words is part of it; other lines are not, so that
// a script can be wrapped into text.
//
//	@say TEXT               a turn of the model that says TEXT; \n begins a new line
//	@tool NAME {JSON}       a turn that calls a tool; one that takes text gets the rest
//	                        of the line, where \n begins a new one
//	@also NAME {JSON}       one more tool call in the turn of the line before
//	@error STATUS TEXT      a turn that is refused with this HTTP status
//	@hang TEXT              a turn that says TEXT (or nothing) and then never ends
//	@mute                   a turn that is not answered at all, no header even
//	@cut TEXT               a turn whose connection breaks after TEXT
//
// Before one of these lines, for the turn that it makes:
//
//	@sleep 2s               wait before the first byte
//	@slow 20 100ms          the text comes in 20 pieces, 100 ms apart
//	@think TEXT             reasoning, before the answer
//	@text TEXT              text before the tool calls
//	@usage 1000 20          tokens in and out, instead of an estimate
//
// and anywhere:
//
//	@key NAME               names the conversation: [Request.Key]
//
// A script with several turns is played one turn for every request that comes
// back with the results of the tools: turn n is found by counting the messages
// of the assistant after the script, so the server keeps no state, and a request
// that is repeated gets the same answer again. The exceptions are
//
//	@error STATUS times=2 retry-after=3 TEXT
//	@hang times=1 TEXT
//	@mute times=1
//	@cut times=1 TEXT
//
// which stand for the first attempts of a request only, so many times; then the
// next line answers it. A client that is refused with retry-after is told to come
// back after so many seconds.
//
// An error after a @text comes in the stream, after the text: what a provider
// does that breaks down in the middle of an answer.
//
// ${re:REGEXP} in a text or in JSON is replaced with the last match (its first
// group, when there is one) in the results of tools: for ids that tools made.
//
// After its last turn a script says "script done". A user message without a
// script is answered with "echo: " and its beginning, a request for a title with
// "Scripted title". A script that cannot be read is refused with status 400 and
// a sentence that names the line.
package modelserver
