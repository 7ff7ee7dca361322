package bgagenttest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/bgagent/bgagent"
)

// messageChecks check the messages and tool calls of a session.
var messageChecks = []check{
	{name: "message order", why: "only what comes after the prompt is an answer to it", needs: []need{aReader}, run: checkMessageOrder},
	{name: "message ids", why: "a message is identified by its id, so a second one with the same id replaces the first", needs: []need{aReader}, run: checkMessageIDs},
	{name: "finished", why: "a turn whose last message might still change looks as if it was cut off", needs: []need{aReader}, run: checkFinished},
	{name: "prompt ids", why: "they distinguish the answer to this prompt from the answer to an earlier one", needs: []need{aReader, keptPromptIDs}, run: checkPromptIDs},
	{name: "cursor", why: "if old messages are returned again, every read covers the whole session", needs: []need{aReader}, run: checkCursor},
	{name: "changes", why: "if a change is not returned, the manager keeps a half-written message", needs: []need{aReader}, run: checkChanges},
	{name: "pages", why: "a page that is larger than requested might not fit into memory", needs: []need{aReader}, run: checkPages},
	{name: "tool calls", why: "a call is counted once by its id, and a call that never ends keeps its turn open", needs: []need{harnessTool}, run: checkToolCalls},
	{name: "no answer", why: "a task without an answer ends as an error, but a made-up answer counts as a real one", needs: []need{harnessSilent}, run: checkNoAnswer},
	{name: "cut answer", why: "the reader takes half an answer for completed work", needs: []need{harnessCut}, run: checkCutAnswer},
	{name: "late pieces", why: "late pieces are often the whole answer, and they are ignored after RunTurn has returned", needs: []need{harnessLate}, run: checkLatePieces},
	{name: "one end of a call", why: "a report under the id of a call that has ended counts as another call", needs: []need{aRunner, harnessTool}, run: checkOneEnd},
	{name: "tools in messages", why: "the calls in the messages must agree with the calls that were counted", needs: []need{aReader, harnessTool}, run: checkToolsInMessages},
}

func checkMessageOrder(c *checkContext) {
	id := c.create()
	c.say(id, "almond")
	c.say(id, "basil")
	var roles []string
	for _, msg := range c.readAll(id) {
		for _, word := range []string{"almond", "basil"} {
			if msg.Role == bgagent.RoleAgent && strings.Contains(msg.Text, word) {
				roles = append(roles, "answer "+word)
			}
		}
		if msg.Role == bgagent.RoleUser {
			roles = append(roles, "prompt")
		}
	}
	if want := []string{"prompt", "answer almond", "prompt", "answer basil"}; !slices.Equal(roles, want) {
		c.failf("after two turns the messages are %q; they should be %q", roles, want)
	}
}

func checkMessageIDs(c *checkContext) {
	id := c.create()
	c.say(id, "caraway")
	c.say(id, "dill")
	seen := map[string]string{}
	for _, msg := range c.page(id, "", 1000).Messages {
		switch was, twice := seen[msg.ID]; {
		case msg.ID == "":
			c.failf("the message %q has no id", msg.Text)
		case twice:
			c.failf("the messages %q and %q have the same id %q", was, msg.Text, msg.ID)
		}
		seen[msg.ID] = msg.Text
	}
}

func checkFinished(c *checkContext) {
	id := c.create()
	c.say(id, "endive")
	if !c.until(c.h.Settle, func() bool { return unfinished(c.readAll(id)) == "" }) {
		c.failf("the message %q is not Finished %v after its turn", unfinished(c.readAll(id)), c.h.Settle)
	}
}

// The function "unfinished" returns the text of a message that can still change. It returns "" if
// there is no such message.
func unfinished(msgs []bgagent.Message) string {
	for _, msg := range msgs {
		if !msg.Finished {
			return msg.Role.String() + ": " + msg.Text
		}
	}
	return ""
}

func checkPromptIDs(c *checkContext) {
	id := c.create()
	var want, got []string
	for _, word := range []string{"fennel", "garlic"} {
		d := c.begin(id, c.h.Say(word))
		c.answered(d, word)
		want = append(want, d.prompt.ID)
	}
	for _, msg := range c.readAll(id) {
		if msg.Role == bgagent.RoleUser {
			got = append(got, msg.PromptID)
		}
	}
	if !slices.Equal(got, want) {
		c.failf("the prompt ids of the user's messages are %q; they should be %q", got, want)
	}
}

// The method "settled" updates v with new and changed messages until all messages in v are
// finished.
func (c *checkContext) settled(session string, v *conversation) {
	c.Helper()
	c.until(c.h.Settle, func() bool {
		c.readOn(session, v, 1000)
		return unfinished(v.list) == ""
	})
}

func checkCursor(c *checkContext) {
	id := c.create()
	if page := c.page(id, "", 1000); len(page.Messages) > 0 {
		c.failf("a session without a turn should have no messages; it has %q", texts(page.Messages))
	}
	var v conversation
	c.say(id, "hyssop")
	c.settled(id, &v)
	if v.next == "" {
		c.endf("the cursor is empty after a page with messages")
	}
	if again := c.page(id, v.next, 1000); len(again.Messages) > 0 || again.More {
		c.failf("nothing has changed since the cursor %q, but it returns %q (more: %v)", v.next, texts(again.Messages), again.More)
	}
	old := map[string]bool{}
	for _, msg := range v.list {
		old[msg.ID] = true
	}
	c.say(id, "iris")
	for _, msg := range c.page(id, v.next, 1000).Messages {
		if old[msg.ID] {
			c.failf("the message %q has not changed since the cursor %q, but is returned again", msg.Text, v.next)
		}
	}
}

func checkChanges(c *checkContext) {
	id := c.create()
	var v conversation
	d := c.slow(id)
	c.readOn(id, &v, 1000)
	half := texts(v.list)
	d.stop()
	var whole []bgagent.Message
	same := func() bool {
		c.readOn(id, &v, 1000)
		whole = c.readAll(id)
		return fmt.Sprint(shown(v.list)) == fmt.Sprint(shown(whole))
	}
	if !c.until(c.h.Settle, same) {
		c.failf("read from the cursor after %q, the session is %+v; read from the beginning, it is %+v", half, shown(v.list), shown(whole))
	}
	c.say(id, "jasmine")
	if !c.until(c.h.Settle, same) {
		c.failf("read from the cursor one turn later, the session is %+v; read from the beginning, it is %+v", shown(v.list), shown(whole))
	}
}

// A look contains the fields of a message that must be the same every time the message is read.
type look struct {
	ID, Text string
	Role     bgagent.Role
	Finished bool
	Stop     bgagent.StopReason
	Tools    []bgagent.MessageTool
}

func shown(msgs []bgagent.Message) (out []look) {
	for _, msg := range msgs {
		out = append(out, look{msg.ID, msg.Text, msg.Role, msg.Finished, msg.Stop, msg.Tools})
	}
	return out
}

func texts(msgs []bgagent.Message) []string {
	out := make([]string, len(msgs))
	for i, msg := range msgs {
		out[i] = msg.Role.String() + ": " + msg.Text
	}
	return out
}

func checkPages(c *checkContext) {
	id := c.create()
	for _, word := range []string{"kale", "lovage", "mint"} {
		c.say(id, word)
	}
	var whole conversation
	c.settled(id, &whole)
	for _, most := range []int{1, 2, 5} {
		var v conversation
		c.readOn(id, &v, most)
		for _, page := range v.pages {
			if len(page.Messages) > most {
				c.failf("a page has %d messages; at most %d were requested", len(page.Messages), most)
			}
		}
		if got, want := fmt.Sprint(shown(v.list)), fmt.Sprint(shown(whole.list)); got != want {
			c.failf("read %d messages at a time, the session is %s; read all at once, it is %s", most, got, want)
		}
	}
}

func checkToolCalls(c *checkContext) {
	o := c.begin(c.create(), c.h.Tool()).await()
	if o.failed() {
		c.endf("the turn with the prompt of Harness.Tool ended as %v; it should end with an answer", o)
	}
	c.oneCall(o.tools, "the turn")
}

func checkOneEnd(c *checkContext) {
	ends := 0
	told := c.begin(c.create(), c.h.Tool()).await().tools
	for _, t := range told {
		if !t.State.InFlight() {
			ends++
		}
	}
	if ends != 1 {
		c.failf("the end of a tool call was reported %d times: %+v; it should be reported once", ends, told)
	}
}

func checkNoAnswer(c *checkContext) {
	o := c.begin(c.create(), c.h.Silent()).await()
	if o.err == nil && strings.TrimSpace(o.text) != "" {
		c.failf("the agent wrote nothing, but the turn ended as %v; it should end without a text or with an error", o)
	}
	if len(o.tools) > 0 {
		c.failf("the agent called no tool, but %+v were reported", o.tools)
	}
}

func checkCutAnswer(c *checkContext) {
	o := c.begin(c.create(), c.h.Cut()).await()
	if o.err == nil && o.stop != bgagent.StopLength && o.stop != bgagent.StopTurnLimit {
		c.failf("an answer that was cut off ended as %v; it should be StopLength, StopTurnLimit or an error", o)
	}
}

func checkLatePieces(c *checkContext) {
	id := c.create()
	c.answered(c.begin(id, c.h.Late("oregano")), "oregano")
	c.say(id, "parsley") // late pieces of the first turn must not appear in this turn
}

// oneCall checks that all reported states belong to one tool call, and that this tool
// call has ended.
func (c *checkContext) oneCall(told []bgagent.MessageTool, where string) {
	c.Helper()
	ids := map[string]bgagent.MessageTool{}
	for _, t := range told {
		if t.ID == "" || t.Name == "" {
			c.failf("%s shows a tool call without an id or a name: %+v", where, t)
		}
		ids[t.ID] = t
	}
	if len(ids) != 1 {
		c.failf("%s shows %d tool calls: %+v; the agent made one", where, len(ids), told)
	}
	for _, t := range ids {
		if t.State.InFlight() {
			c.failf("the tool call %q is still %s after the turn", t.ID, t.State)
		}
	}
}

func checkToolsInMessages(c *checkContext) {
	id := c.create()
	c.begin(id, c.h.Tool()).await()
	c.say(id, "nettle") // the messages of the next turn must not contain the call again
	var told []bgagent.MessageTool
	for _, msg := range c.readAll(id) {
		told = append(told, msg.Tools...)
	}
	c.oneCall(told, "the list of messages")
}
