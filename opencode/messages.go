package opencode

import (
	"context"
	"fmt"
	"hash/fnv"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/bgagent/bgagent"
)

// The server lists messages from newest to oldest, and has no list of changed messages. Therefore,
// a cursor contains the id of the settled message, which is the last message that is not expected
// to change. It also contains a hash of each later message that was returned.

const (
	// lateWindow is the number of messages at the end of a session that are read again even if they
	// are finished, because an abort changes a message after the session becomes idle.
	lateWindow = 4
	// openWindow is the number of messages at the end of a session that are read again while they
	// are unfinished. The number is limited because a message that was interrupted by a crash is
	// never finished.
	openWindow = 64

	firstChunk = 10
	nextChunk  = 100

	cursorVersion = "2"
	defaultPage   = 100

	// These bounds limit the messages that one call reads from a session: their number, and the bytes of
	// their text. Without these bounds, a faulty server could send pages forever.
	maxMessages = 200_000
	maxText     = 256 << 20
)

// position is a decoded cursor.
type position struct {
	settled string            // id of the last message that is not expected to change
	track   track             // the track after the settled message
	seen    map[string]uint64 // hashes of the later messages that were returned, by id
}

func parseCursor(cur bgagent.Cursor) (p position, err error) {
	p.seen = map[string]uint64{}
	if cur == "" {
		return p, nil
	}
	bad := fmt.Errorf("opencode: %q is not a cursor of this client", cur)
	fields := strings.Split(string(cur), "|")
	if len(fields) != 4 || fields[0] != cursorVersion {
		return p, bad
	}
	p.settled = fields[1]
	var ok bool
	if p.track, ok = parseTrack(fields[3]); !ok {
		return p, bad
	}
	for _, x := range strings.Split(fields[2], ",") {
		if x == "" {
			continue
		}
		id, hex, ok := strings.Cut(x, "=")
		n, err := strconv.ParseUint(hex, 16, 64)
		if !ok || id == "" || err != nil {
			return p, bad
		}
		p.seen[id] = n
	}
	return p, nil
}

// cursor encodes the position. It leaves out the hashes of messages that are not in the list "rest".
func (p position) cursor(rest []line) bgagent.Cursor {
	var b strings.Builder
	b.WriteString(cursorVersion + "|" + p.settled + "|")
	for i, first := 0, true; i < len(rest); i++ {
		h, ok := p.seen[rest[i].ID]
		if !ok {
			continue
		}
		if !first {
			b.WriteByte(',')
		}
		first = false
		b.WriteString(rest[i].ID + "=" + strconv.FormatUint(h, 16))
	}
	return bgagent.Cursor(b.String() + "|" + p.track.String())
}

// Messages implements [bgagent.MessageReader]. If max is 0 or less, a page has at most 100
// messages.
func (c *Client) Messages(ctx context.Context, id string, after bgagent.Cursor, max int) (bgagent.Page, error) {
	p, err := parseCursor(after)
	if err != nil {
		return bgagent.Page{}, err
	}
	list, err := c.since(ctx, id, p)
	if err != nil {
		return bgagent.Page{}, fmt.Errorf("reading the messages of session %s: %w", id, err)
	}
	c.inherit(ctx, id)
	earlier, err := c.continuedBefore(ctx, id, &p, list)
	if err != nil {
		return bgagent.Page{}, fmt.Errorf("reading the messages of session %s: %w", id, err)
	}
	c.recall(id, list)
	c.stuckIn(id, list)
	if max <= 0 {
		max = defaultPage
	}
	if earlier == nil {
		return p.page(list, after, max), nil
	}
	page := p.page(list, after, max-1)
	page.Messages = slices.Insert(page.Messages, 0, *earlier)
	return page, nil
}

// page returns a page of the new and changed messages in the list "rest", which contains the messages
// after the settled message.
func (p position) page(rest []line, after bgagent.Cursor, max int) bgagent.Page {
	var page bgagent.Page
	told := 0 // number of messages at the start of the list whose current state the caller knows after this page
	for i := range rest {
		h := hash(&rest[i].Message)
		if was, ok := p.seen[rest[i].ID]; !ok || was != h {
			if len(page.Messages) == max {
				page.More = true
				break
			}
			page.Messages = append(page.Messages, rest[i].Message)
			p.seen[rest[i].ID] = h
		}
		told++
	}
	settled := 0
	for settled < told && (len(rest)-settled > openWindow || len(rest)-settled > lateWindow && final(&rest[settled].Message)) {
		p.settled, p.track = rest[settled].ID, rest[settled].track
		settled++
	}
	if page.Next = after; after != "" || told > 0 {
		page.Next = p.cursor(rest[settled:])
	}
	return page
}

// The function "final" reports whether the message is not expected to change any more.
func final(m *bgagent.Message) bool {
	return m.Finished && !slices.ContainsFunc(m.Tools, func(t bgagent.MessageTool) bool { return t.State.InFlight() })
}

// The method "since" reads the messages after the settled message of the position, oldest first.
func (c *Client) since(ctx context.Context, id string, p position) ([]line, error) {
	list, found, err := c.back(ctx, id, func(w *wireMessage) bool { return w.Info.ID == p.settled })
	if err != nil {
		return nil, err
	}
	if found {
		return c.lines(id, p.track, list[1:]), nil
	}
	out := c.lines(id, track{}, list)
	if p.settled == "" {
		return out, nil
	}
	// The settled message no longer exists because the user reverted it. The older messages can
	// still be recognized because ids sort by time.
	return slices.DeleteFunc(out, func(m line) bool {
		_, seen := p.seen[m.ID]
		return m.ID < p.settled && !seen
	}), nil
}

// back reads messages backwards, starting with the newest, until the function "last" returns true
// for a message. It returns the messages read, including this message, oldest first. If "last" never
// returns true, all messages are read.
func (c *Client) back(ctx context.Context, id string, last func(*wireMessage) bool) (out []wireMessage, found bool, err error) {
	if !isSession(id) {
		return nil, false, c.noSession()
	}
	defer func() { slices.Reverse(out) }()
	have, size := map[string]bool{}, 0
	for before, chunk := "", firstChunk; ; chunk = nextChunk {
		query := url.Values{"limit": {strconv.Itoa(chunk)}}
		if before != "" {
			query.Set("before", before)
		}
		var page list[wireMessage]
		var header http.Header
		err := c.do(ctx, call{method: http.MethodGet, path: sessionPath(id, "/message"), query: query, out: &page, header: &header})
		if err != nil {
			if missing(err) {
				err = c.noSession()
			}
			return nil, false, err
		}
		some := false
		for _, w := range slices.Backward(page.items) {
			if w.Info.ID == "" || have[w.Info.ID] || w.Info.SessionID != "" && w.Info.SessionID != id {
				continue
			}
			have[w.Info.ID], some = true, true
			out = append(out, w)
			if last(&w) {
				return out, true, nil
			}
			for i := range w.Parts {
				size += len(w.Parts[i].Text)
			}
		}
		next := header.Get("X-Next-Cursor")
		if !some || next == "" || next == before {
			return out, false, nil
		}
		if len(out) > maxMessages || size > maxText {
			return nil, false, &ServerError{URL: c.base, Status: http.StatusOK, Detail: fmt.Sprintf("the session has more than %d messages or %d MB of text", maxMessages, maxText>>20)}
		}
		before = next
	}
}

// hash returns a hash of those fields that, if they change, make the client return the message again.
func hash(m *bgagent.Message) uint64 {
	h := fnv.New64a()
	for _, s := range []string{m.Text, m.Reasoning, m.Error, m.PromptID} {
		io.WriteString(h, s)
		h.Write([]byte{0xff})
	}
	flags := []byte{byte(m.Role), byte(m.Stop), 0}
	if m.Finished {
		flags[2] = 1
	}
	h.Write(flags)
	for _, t := range m.Tools {
		io.WriteString(h, t.ID)
		h.Write([]byte{0xff, byte(t.State)})
	}
	fmt.Fprint(h, m.Usage)
	return h.Sum64()
}

// Todos implements [bgagent.TodoReader].
func (c *Client) Todos(ctx context.Context, id string) ([]bgagent.Todo, error) {
	if !isSession(id) {
		return nil, fmt.Errorf("reading the todos of session %s: %w", id, c.noSession())
	}
	var got list[wireTodo]
	if err := c.do(ctx, call{method: http.MethodGet, path: sessionPath(id, "/todo"), out: &got}); err != nil {
		return nil, fmt.Errorf("reading the todos of session %s: %w", id, err)
	}
	return todos(got.items), nil
}
