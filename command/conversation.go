package command

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/bgagent/bgagent"
)

// conversation keeps the prompts and answers of a session's most recent turns. The program's own
// files contain the whole conversation.
type conversation struct {
	keep   int // maximum number of bytes of text to keep
	before int // number of exchanges that took place in earlier processes and are not in the field "list"; the program remembers them

	mu    sync.Mutex
	list  []exchange
	first int // number of the first exchange in the field "list", counted from 0
	size  int
	now   *Output // output of the current turn; nil if no turn is running
	asked string  // prompt of the current turn
	short bool    // whether the field "asked" contains only the beginning of the prompt
}

// exchange is the prompt and answer of a turn that has ended.
type exchange struct {
	prompt, answer string
	tools          []bgagent.MessageTool
	stop           bgagent.StopReason
	problem        string
	provider       *bgagent.ProviderError
	cut            bool // whether the end of the prompt or of the answer is missing
	undone         bool // whether the program has kept nothing from the turn; see [bgagent.NextRepeat]
}

func (x *exchange) size() int {
	n := len(x.prompt) + len(x.answer) + len(x.problem)
	for _, t := range x.tools {
		n += 48 + len(t.ID) + len(t.Name)
	}
	return n
}

func (c *conversation) begin(prompt string, out *Output) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now, c.asked = out, cut(prompt, c.keep/2)
	c.short = len(c.asked) < len(prompt)
}

// The method "end" adds the current turn, which has ended, to the list. If the list has too many
// turns, or if their texts are too long, the method drops the oldest turns.
func (c *conversation) end(x exchange) {
	c.mu.Lock()
	defer c.mu.Unlock()
	x.prompt = c.asked
	answer := cut(x.answer, c.keep-len(x.prompt))
	x.cut = c.short || len(answer) < len(x.answer)
	x.answer = answer
	c.list, c.size = append(c.list, x), c.size+x.size()
	c.now, c.asked = nil, ""
	for len(c.list) > 1 && (c.size > c.keep || len(c.list) > maxTurns) {
		c.size -= c.list[0].size()
		c.list[0] = exchange{}
		c.list, c.first = c.list[1:], c.first+1
	}
}

// errForgotten is the error for a session that cannot be continued, because the program has
// never reported its id for the session and the client has not kept the whole conversation.
var errForgotten = errors.New("it never reported its session and so cannot continue it, and the conversation so far is too long to be repeated; launch a new task")

// retell returns the prompt with the conversation in front of it. It is used if the
// program cannot continue the session.
func (c *conversation) retell(prompt string) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var b strings.Builder
	b.WriteString("The conversation so far was lost by the program. It is told again here, without the tool calls.\n\n")
	for _, x := range c.list {
		if x.undone {
			continue
		}
		if x.cut {
			return "", errForgotten
		}
		b.WriteString("# You were asked\n\n" + x.prompt + "\n\n")
		if x.answer != "" {
			b.WriteString("# You answered\n\n" + x.answer + "\n\n")
		}
	}
	if c.first > c.before {
		return "", errForgotten
	}
	return b.String() + "# You are asked now\n\n" + prompt, nil
}

// maxTurns is the maximum number of turns that are kept.
const maxTurns = 1000

// The method "page" returns the messages after the cursor. The parameter "most" is the maximum
// number of messages; zero means no limit. The cursor is the number of finished messages before the
// page, including dropped ones. The page itself does not contain dropped messages.
func (c *conversation) page(after bgagent.Cursor, most int) (bgagent.Page, error) {
	from := 0
	if after != "" {
		var err error
		if from, err = strconv.Atoi(string(after)); err != nil || from < 0 {
			return bgagent.Page{}, fmt.Errorf("the cursor %q is not one of this client's", after)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	from = max(from, 2*c.first)
	all := c.messagesLocked(from)
	page := bgagent.Page{Messages: all}
	if most > 0 && len(all) > most {
		page.Messages, page.More = all[:most], true
	}
	next := from
	for _, m := range page.Messages {
		if m.Finished { // an unfinished message is returned again by the next call
			next++
		}
	}
	page.Next = bgagent.Cursor(strconv.Itoa(next))
	return page, nil
}

func (c *conversation) messagesLocked(from int) (out []bgagent.Message) {
	add := func(n int, m bgagent.Message) {
		if m.ID = "msg_" + strconv.Itoa(n+1); n >= from {
			out = append(out, m)
		}
	}
	prompted := func(text string) bgagent.Message {
		return bgagent.Message{Role: bgagent.RoleUser, Text: text, Finished: true}
	}
	for i, x := range c.list {
		n := 2 * (c.first + i)
		add(n, prompted(x.prompt))
		add(n+1, bgagent.Message{Role: bgagent.RoleAgent, Text: x.answer, Tools: x.tools, Finished: true, Stop: x.stop, Error: x.problem, Provider: x.provider})
	}
	if c.now != nil {
		n := 2 * (c.first + len(c.list))
		add(n, prompted(c.asked))
		if said := c.now.said(); said.text != "" || len(said.tools) > 0 {
			add(n+1, bgagent.Message{Role: bgagent.RoleAgent, Text: cut(said.text, c.keep), Tools: said.tools})
		}
	}
	return out
}
