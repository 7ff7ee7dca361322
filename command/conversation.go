package command

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/bgagent/bgagent"
)

// conversation is what is kept of a session: the prompts and answers of its last
// turns. The programs keep the whole, each in its own way.
type conversation struct {
	keep int // bytes of text

	mu    sync.Mutex
	list  []exchange
	first int // number of the first exchange in list, from 0
	size  int
	now   *Output // of the turn that runs
	asked string  // its prompt
	short bool    // that is not the whole of it
}

// exchange is a turn that is over.
type exchange struct {
	prompt, answer string
	tools          []bgagent.MessageTool
	stop           bgagent.StopReason
	problem        string
	cut            bool // something of it is not kept
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

// end adds the turn that began, and drops the oldest ones that are too many.
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

// errForgotten is why a session cannot be gone on with whose program has never
// told its id of it.
var errForgotten = errors.New("it never told its session, so that it cannot go on with it, and the conversation so far is too long to be told again; launch a new task")

// retell returns a prompt with the conversation before it, for a program that
// does not have it any more.
func (c *conversation) retell(prompt string) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var b strings.Builder
	b.WriteString("The conversation so far was lost by the program. It is told again here, without the tool calls.\n\n")
	for _, x := range c.list {
		if x.cut {
			return "", errForgotten
		}
		b.WriteString("# You were asked\n\n" + x.prompt + "\n\n")
		if x.answer != "" {
			b.WriteString("# You answered\n\n" + x.answer + "\n\n")
		}
	}
	if c.first > 0 {
		return "", errForgotten
	}
	return b.String() + "# You are asked now\n\n" + prompt, nil
}

// maxTurns bounds the turns that are kept, however little they say.
const maxTurns = 1000

// page returns the messages after the cursor, which is the number of messages
// that are over; those that have been dropped are left out.
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
		if m.Finished { // what may still change is returned again
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
		add(n+1, bgagent.Message{Role: bgagent.RoleAgent, Text: x.answer, Tools: x.tools, Finished: true, Stop: x.stop, Error: x.problem})
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
