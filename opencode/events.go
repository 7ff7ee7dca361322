package opencode

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"time"

	"github.com/bgagent/bgagent"
)

const (
	// streamSilence is how long the stream can stay without data before the client treats it as broken. The
	// server sends a heartbeat every 10 seconds.
	streamSilence = 25 * time.Second

	reconnectMin = 100 * time.Millisecond
	reconnectMax = 5 * time.Second

	// reconnectTries is the number of consecutive failures after which Events returns. The manager
	// then logs the error and calls Events again.
	reconnectTries = 8

	// maxEvent is the maximum size of one event, in bytes. The largest events hold the output of a
	// tool or diffs of files.
	maxEvent = 32 << 20

	// keepEvent is the size of the largest buffer that is kept for the next event, in
	// bytes.
	keepEvent = 1 << 20
)

// errFollowed is returned by a call to Events while another call is running.
var errFollowed = errors.New("opencode: the event stream of this client is already followed; only one manager can use a client")

// Events implements [bgagent.EventSource]. It follows the server's stream for all directories, and
// reconnects when the stream drops or becomes silent. Lost events cannot be requested again,
// because the events have no ids. Therefore, Events emits HostStreamGap when events might have been
// lost.
func (c *Client) Events(ctx context.Context, emit func(bgagent.HostEvent)) error {
	c.mu.Lock()
	if c.tell != nil {
		c.mu.Unlock()
		return errFollowed
	}
	c.tell = emit
	c.tellAll()
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.tell = nil
	}()
	again := false
	for failures := 0; ; {
		up, err := c.follow(ctx, emit, again)
		if up {
			failures, again = 0, true
			emit(bgagent.HostEvent{Kind: bgagent.HostStreamGap})
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if c.cfg.Logger != nil {
			c.cfg.Logger.Warn("opencode: the event stream was interrupted", "url", c.base, "error", err)
		}
		var e *ServerError
		failures++
		if failures >= reconnectTries || errors.As(err, &e) && e.Status >= 300 && e.Status < 500 {
			return fmt.Errorf("following opencode's events: %w", err)
		}
		if !sleep(ctx, min(reconnectMin<<(failures-1), reconnectMax)) {
			return context.Cause(ctx)
		}
	}
}

// follow connects once and reads until the stream drops. The result "up" reports whether the stream
// was connected.
func (c *Client) follow(ctx context.Context, emit func(bgagent.HostEvent), again bool) (up bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := time.AfterFunc(streamSilence, func() {
		cancel(fmt.Errorf("the event stream of the opencode server at %s has been silent for %v", c.base, streamSilence))
	})
	defer watch.Stop()
	c.mu.Lock()
	c.breakOff = cancel
	c.mu.Unlock()
	req, err := c.request(ctx, call{method: http.MethodGet, path: "/global/event"})
	if err != nil {
		return false, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return false, c.unreached(ctx, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return false, c.refused(resp)
	}
	if kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); kind != "" && kind != "text/event-stream" {
		return false, &ServerError{URL: c.base, Status: resp.StatusCode, Detail: "the answer is " + kind + " instead of an event stream", Advice: adviceNotOpencode}
	}
	f := newFollower(c, emit, again)
	defer f.down()
	err = readEvents(resp.Body, func(data []byte) {
		watch.Reset(streamSilence)
		f.event(ctx, data)
	})
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return f.up, err
}

// streamLag is how far the stream may lag behind the server's responses.
const streamLag = time.Second

var errBehind = fmt.Errorf("the event stream has been more than %v behind the server's answers", streamLag)

// keepsUp is called when the server has reported a session as idle. It checks whether the stream
// has reported the same. If the stream lags behind, keepsUp closes it. Otherwise, the manager would
// conclude from a missing event that nothing happened.
func (c *Client) keepsUp(session string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.sessions[session]
	if s == nil || !s.ours {
		return
	}
	switch now := time.Now(); {
	case !c.stream || !s.busy && s.awaited == "":
		s.behind = time.Time{}
	case s.behind.IsZero():
		s.behind = now
	case now.Sub(s.behind) >= streamLag:
		s.behind = time.Time{}
		c.breakOff(errBehind)
	}
}

// readEvents calls f for the data of every server-sent event until the stream
// ends. The data is valid only during the call. An event that is too large is skipped,
// and f is called with nil instead.
func readEvents(r io.Reader, f func(data []byte)) error {
	in := lineReader{in: bufio.NewReaderSize(r, 64<<10)}
	if start, _ := in.in.Peek(3); bytes.Equal(start, []byte("\xef\xbb\xbf")) {
		_, _ = in.in.Discard(3)
	}
	var data []byte
	large := false
	for {
		line, whole, err := in.next(maxEvent)
		if err != nil {
			return err
		}
		text, isData := bytes.CutPrefix(line, []byte("data:"))
		switch {
		case len(line) == 0:
			switch {
			case large:
				f(nil)
			case len(data) > 0:
				f(data)
			}
			data, large = data[:0], false
			if cap(data) > keepEvent {
				data = nil
			}
		case !isData: // a comment, or a field that is not used
		case large, !whole, len(data)+len(text) > maxEvent:
			large, data = true, nil
		default:
			if len(data) > 0 {
				data = append(data, '\n')
			}
			data = append(data, bytes.TrimPrefix(text, []byte(" "))...)
		}
	}
}

// lineReader reads the lines of a stream. A line ends with \n, \r or \r\n.
type lineReader struct {
	in   *bufio.Reader
	long []byte // a line that does not fit into the reader's buffer
	cr   bool   // the last line ended with \r
}

// next returns a line without its terminator. If the line has more than "most" bytes, the method
// "next" returns only a part of the line, and the result "whole" is false. The returned line is
// valid until the next call.
func (l *lineReader) next(most int) (line []byte, whole bool, err error) {
	l.long = l.long[:0]
	if cap(l.long) > keepEvent {
		l.long = nil
	}
	whole = true
	for {
		if _, err := l.in.Peek(1); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF // the server never ends the stream on purpose
			}
			return nil, false, err
		}
		have, _ := l.in.Peek(l.in.Buffered())
		if l.cr {
			l.cr = false
			if have[0] == '\n' {
				_, _ = l.in.Discard(1)
				continue
			}
		}
		end := bytes.IndexAny(have, "\r\n")
		if end < 0 {
			if whole = whole && len(l.long)+len(have) <= most; whole {
				l.long = append(l.long, have...)
			}
			_, _ = l.in.Discard(len(have))
			continue
		}
		l.cr = have[end] == '\r'
		line = have[:end]
		if len(l.long) > 0 || !whole {
			if whole = whole && len(l.long)+end <= most; whole {
				l.long = append(l.long, line...)
			}
			line = l.long
		}
		_, _ = l.in.Discard(end + 1)
		return line, whole, nil
	}
}
