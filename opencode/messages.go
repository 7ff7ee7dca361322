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

// The server lists messages backwards from the newest, and has no way to ask
// for changes. So a cursor says up to which message nothing can change any more,
// and of each one after that what it looked like when it was returned.

const (
	// lateWindow is how many of the last messages are looked at again even when
	// they are finished: an abort changes a message after the session fell idle.
	lateWindow = 4
	// openWindow is how many of the last messages may hold the cursor back by not
	// being finished. One that a crash left half done never will be.
	openWindow = 64

	firstChunk = 10
	nextChunk  = 100

	cursorVersion = "1"
	defaultPage   = 100
)

// position is a cursor, decoded.
type position struct {
	settled string            // the last message that cannot change any more
	seen    map[string]uint64 // those after it that have been returned, by their hashes
}

func parseCursor(cur bgagent.Cursor) (p position, err error) {
	p.seen = map[string]uint64{}
	if cur == "" {
		return p, nil
	}
	bad := fmt.Errorf("opencode: %q is no cursor of this client", cur)
	fields := strings.Split(string(cur), "|")
	if len(fields) != 3 || fields[0] != cursorVersion {
		return p, bad
	}
	p.settled = fields[1]
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

// cursor returns the position in front of all of rest that is not in seen.
func (p position) cursor(rest []bgagent.Message) bgagent.Cursor {
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
	return bgagent.Cursor(b.String())
}

// Messages implements [bgagent.MessageReader]. A max that is not positive
// counts as 100.
func (c *Client) Messages(ctx context.Context, id string, after bgagent.Cursor, max int) (bgagent.Page, error) {
	p, err := parseCursor(after)
	if err != nil {
		return bgagent.Page{}, err
	}
	list, err := c.since(ctx, id, p)
	if err != nil {
		return bgagent.Page{}, fmt.Errorf("reading the messages of session %s: %w", id, err)
	}
	if max <= 0 {
		max = defaultPage
	}
	return p.page(list, after, max), nil
}

// page makes a page of the messages after the position.
func (p position) page(rest []bgagent.Message, after bgagent.Cursor, max int) bgagent.Page {
	var page bgagent.Page
	told := 0 // so many of the first are known as they are now
	for i := range rest {
		h := hash(&rest[i])
		if was, ok := p.seen[rest[i].ID]; !ok || was != h {
			if len(page.Messages) == max {
				page.More = true
				break
			}
			page.Messages = append(page.Messages, rest[i])
			p.seen[rest[i].ID] = h
		}
		told++
	}
	settled := 0
	for settled < told && (len(rest)-settled > openWindow || len(rest)-settled > lateWindow && final(&rest[settled])) {
		p.settled = rest[settled].ID
		settled++
	}
	if page.Next = after; after != "" || told > 0 {
		page.Next = p.cursor(rest[settled:])
	}
	return page
}

// final reports whether a message is not expected to change any more.
func final(m *bgagent.Message) bool {
	return m.Finished && !slices.ContainsFunc(m.Tools, func(t bgagent.MessageTool) bool { return t.State.InFlight() })
}

// since reads the messages after the settled one, oldest first.
func (c *Client) since(ctx context.Context, id string, p position) ([]bgagent.Message, error) {
	if !isSession(id) {
		return nil, c.noSession()
	}
	var out []bgagent.Message // newest first
	before, chunk := "", firstChunk
	for {
		query := url.Values{}
		if p.settled != "" { // else all of them
			query.Set("limit", strconv.Itoa(chunk))
		}
		if before != "" {
			query.Set("before", before)
		}
		var list []wireMessage
		var header http.Header
		err := c.do(ctx, call{method: http.MethodGet, path: sessionPath(id, "/message"), query: query, out: &list, header: &header})
		if err != nil {
			if missing(err) {
				err = c.noSession()
			}
			return nil, err
		}
		for i := len(list) - 1; i >= 0; i-- {
			if p.settled != "" && list[i].Info.ID == p.settled {
				slices.Reverse(out)
				return out, nil
			}
			out = append(out, list[i].message())
		}
		next := header.Get("X-Next-Cursor")
		if p.settled == "" || len(list) == 0 || next == "" || next == before {
			break
		}
		before, chunk = next, nextChunk
	}
	slices.Reverse(out)
	if p.settled == "" {
		return out, nil
	}
	// The settled message is gone: the user has taken it back. Ids sort by time.
	return slices.DeleteFunc(out, func(m bgagent.Message) bool {
		_, seen := p.seen[m.ID]
		return m.ID < p.settled && !seen
	}), nil
}

// hash changes when anything of the message does that a reader can see.
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
	var list []wireTodo
	if err := c.do(ctx, call{method: http.MethodGet, path: sessionPath(id, "/todo"), out: &list}); err != nil {
		return nil, fmt.Errorf("reading the todos of session %s: %w", id, err)
	}
	return todos(list), nil
}
