package modelserver

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// scriptTurn is one turn of a script.
type scriptTurn struct {
	line  string // line in the script
	reply Reply
	times int // number of attempts of a request that get this turn; 0 means all attempts
}

// The method "ends" reports whether all attempts of a request get this turn. If so, the following line is
// for a later request. Otherwise, only the first attempts get this turn, and the turn leaves no assistant
// message in the conversation.
func (t scriptTurn) ends() bool {
	return t.times == 0
}

// parseScript reads the script in the given text. It returns no turns if there is no script.
func parseScript(text string) ([]scriptTurn, error) {
	var turns []scriptTurn
	var next Reply
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		word, rest, _ := strings.Cut(line, " ")
		rest = strings.TrimSpace(rest)
		turn := scriptTurn{line: line, reply: next}
		var err error
		made := true
		switch word {
		case "@say":
			turn.reply.Text = unescape(rest)
		case "@tool":
			err = turn.call(rest)
		case "@also":
			made = false
			if len(turns) == 0 || len(turns[len(turns)-1].reply.Calls) == 0 {
				err = fmt.Errorf("it must follow a line with @tool")
			} else {
				err = turns[len(turns)-1].call(rest)
			}
		case "@error":
			err = turn.refusal(rest)
		case "@hang":
			turn.reply.Hang = true
			err = turn.broken(rest)
		case "@mute":
			turn.reply.Mute = true
			err = turn.broken(rest)
		case "@cut":
			turn.reply.Cut = true
			err = turn.broken(rest)
		default:
			made = false
			err = modify(&next, word, rest)
		}
		if err != nil {
			return nil, fmt.Errorf("reading the script line %q: %w", line, err)
		}
		if made {
			turns, next = append(turns, turn), Reply{}
		}
	}
	return turns, nil
}

// The function "modify" reads a line that modifies the next turn. It ignores all other lines.
func modify(next *Reply, word, rest string) (err error) {
	switch word {
	case "@sleep":
		next.Delay, err = duration(rest)
	case "@slow":
		n, gap, _ := strings.Cut(rest, " ")
		if next.Chunks, err = strconv.Atoi(n); err != nil || next.Chunks < 1 || next.Chunks > 100_000 {
			return fmt.Errorf("%q is not a number of pieces from 1 to 100000", n)
		}
		next.Gap, err = duration(strings.TrimSpace(gap))
	case "@think":
		next.Reasoning = unescape(rest)
	case "@text":
		next.Text = unescape(rest)
	case "@usage":
		var u Usage
		if _, err := fmt.Sscanf(rest, "%d %d", &u.Input, &u.Output); err != nil || u.Input < 0 || u.Output < 0 {
			return fmt.Errorf("%q is not two numbers of tokens, like 1000 20", rest)
		}
		next.Usage = &u
	}
	return err
}

func duration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%q is not a duration like 200ms or 2s", s)
	}
	return d, nil
}

func unescape(s string) string { return strings.ReplaceAll(s, `\n`, "\n") }

func (t *scriptTurn) call(rest string) error {
	name, args, _ := strings.Cut(rest, " ")
	if name == "" {
		return fmt.Errorf("it names no tool; write @tool NAME {JSON}")
	}
	if args = strings.TrimSpace(args); args == "" {
		args = "{}"
	}
	t.reply.Calls = append(t.reply.Calls, Call{Name: name, Args: args})
	return nil
}

func (t *scriptTurn) refusal(rest string) error {
	word, rest, _ := strings.Cut(rest, " ")
	status, err := strconv.Atoi(word)
	if err != nil || status < 400 || status > 599 {
		return fmt.Errorf("%q is not an HTTP status from 400 to 599", word)
	}
	var seconds, date, reset, inStream int
	var reason string
	rest, err = options(rest, map[string]any{"times": &t.times, "retry-after": &seconds, "retry-date": &date, "reset": &reset, "in-stream": &inStream, "reason": &reason})
	if err != nil {
		return err
	}
	t.reply.Error = &Error{
		Status: status, Message: rest, RetryAfter: time.Duration(max(seconds, date)) * time.Second, Dated: date > 0,
		Reset: time.Duration(reset) * time.Second, InStream: inStream > 0,
	}
	t.reply.Error.Reason, err = readReason(reason)
	return err
}

// The method "broken" parses the arguments of @hang, @mute and @cut.
func (t *scriptTurn) broken(rest string) error {
	rest, err := options(rest, map[string]any{"times": &t.times})
	if rest != "" {
		t.reply.Text = rest
	}
	return err
}

// The function "options" reads NAME=VALUE options at the start of the text and returns the
// remaining text. The map "known" contains, for each option, a pointer to the number or the word that
// the option sets.
func options(text string, known map[string]any) (rest string, err error) {
	for {
		word, after, _ := strings.Cut(strings.TrimSpace(text), " ")
		name, value, found := strings.Cut(word, "=")
		if !found || known[name] == nil {
			return unescape(strings.TrimSpace(text)), nil
		}
		switch into := known[name].(type) {
		case *string:
			*into = value
		case *int:
			n, err := strconv.Atoi(value)
			if err != nil || n < 1 || n > 1_000_000 {
				return "", fmt.Errorf("%q is not a whole number from 1 to 1000000", word)
			}
			*into = n
		}
		text = after
	}
}

// Scripted returns the answer that a server without a handler gives. For an agent's turn, it plays
// the script in the last user message.
func (r Request) Scripted() Reply {
	switch r.Kind {
	case Title:
		return Say("Scripted title")
	case Summary:
		return Say("Scripted summary")
	case Side:
		return Say(string(marshal(instance(r.Schema, 0))))
	}
	at := lastUser(r.Messages)
	if at < 0 {
		return Refuse(400, "the conversation has no user message")
	}
	text := r.Messages[at].Text
	turns, err := parseScript(text)
	switch {
	case err != nil:
		return Refuse(400, err.Error())
	case len(turns) == 0:
		return Say("echo: " + shorten(text, 160))
	}
	turn, ok := pickTurn(turns, r.Turn(), r.Attempt)
	if !ok {
		return Say("script done")
	}
	rep := turn.reply
	if err := r.expand(&rep); err != nil {
		return Refuse(400, fmt.Sprintf("reading the script line %q: %v", turn.line, err))
	}
	return rep
}

// pickTurn returns the turn that answers a request; answered is the number of the model's answers
// since the script, and attempt is the number of this attempt at the request, from 1. A turn that
// answers only a limited number of attempts precedes the turn that answers the later attempts.
func pickTurn(turns []scriptTurn, answered, attempt int) (scriptTurn, bool) {
	for _, t := range turns {
		if t.ends() {
			if answered == 0 {
				return t, true
			}
			answered--
			continue
		}
		if answered > 0 {
			continue
		}
		if attempt <= t.times {
			return t, true
		}
		attempt -= t.times
	}
	return scriptTurn{}, false
}

// The function "shorten" returns the beginning of the text as one line of at most the given number
// of characters.
func shorten(text string, most int) string {
	letters := []rune(strings.Join(strings.Fields(text), " "))
	return string(letters[:min(most, len(letters))])
}

var reference = regexp.MustCompile(`\$\{re:((?:[^{}]|\{[0-9,]*\})*)\}`)

// The method "expand" replaces the references ${re:REGEXP} in the reply's text and calls.
func (r Request) expand(rep *Reply) error {
	var failed error
	in := func(s string, quote bool) string {
		return reference.ReplaceAllStringFunc(s, func(ref string) string {
			re, err := regexp.Compile(reference.FindStringSubmatch(ref)[1])
			if err != nil {
				failed = err
				return ref
			}
			found, ok := r.lastMatch(re)
			if !ok {
				failed = fmt.Errorf("no result of a tool matches %q", re)
				return ref
			}
			if quote {
				b, _ := json.Marshal(found)
				found = string(b[1 : len(b)-1])
			}
			return found
		})
	}
	rep.Text = in(rep.Text, false)
	calls := make([]Call, len(rep.Calls))
	for i, c := range rep.Calls {
		custom := r.custom(c.Name)
		if c.Args = in(c.Args, !custom); custom {
			c.Args = unescape(c.Args)
		}
		if failed == nil && !custom && !json.Valid([]byte(c.Args)) {
			failed = fmt.Errorf("the arguments are not JSON: %s", c.Args)
		}
		calls[i] = c
	}
	rep.Calls = calls
	return failed
}

func (r Request) lastMatch(re *regexp.Regexp) (string, bool) {
	for i := len(r.Messages) - 1; i >= 0; i-- {
		results := r.Messages[i].Results
		for j := len(results) - 1; j >= 0; j-- {
			if all := re.FindAllStringSubmatch(results[j].Text, -1); len(all) > 0 {
				last := all[len(all)-1]
				return last[min(1, len(last)-1)], true
			}
		}
	}
	return "", false
}

// The method "custom" reports whether a tool takes text instead of JSON.
func (r Request) custom(name string) bool { return r.tool(name).Custom }

func (r Request) namespace(name string) string { return r.tool(name).Namespace }

// tool returns the tool with the given name, or the zero ToolDef if the request does not
// offer that tool.
func (r Request) tool(name string) ToolDef {
	for _, t := range r.Tools {
		if t.Name == name {
			return t
		}
	}
	return ToolDef{}
}

// scriptKey returns the name in the conversation's last @key line.
func scriptKey(messages []Message) string {
	key := ""
	for _, m := range messages {
		if m.Role != User {
			continue
		}
		for line := range strings.Lines(m.Text) {
			if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "@key "); ok {
				key = strings.TrimSpace(rest)
			}
		}
	}
	return key
}
