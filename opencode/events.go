package opencode

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/bgagent/bgagent"
)

const (
	// streamSilence is how long the stream may say nothing: the server sends a
	// heartbeat every 10 s.
	streamSilence = 25 * time.Second
	// streamPause is the first pause before the stream is opened again; it
	// doubles up to streamPauseMax.
	streamPause    = 100 * time.Millisecond
	streamPauseMax = 10 * time.Second
	// maxEvent bounds one event; longer ones are passed over.
	maxEvent = 16 << 20
)

// Events implements [bgagent.EventSource]: it follows the stream of all
// directories, opens it again when it breaks off or falls silent, and answers
// what the sessions of tasks ask.
func (c *Client) Events(ctx context.Context, emit func(bgagent.HostEvent)) error {
	var answers sync.WaitGroup
	defer answers.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	pause := streamPause
	for ctx.Err() == nil {
		began := time.Now()
		err := c.follow(ctx, emit, &answers)
		c.setStreamed(false)
		emit(bgagent.HostEvent{Kind: bgagent.HostStreamGap})
		if time.Since(began) > time.Minute || errors.Is(err, io.EOF) && time.Since(began) > time.Second {
			pause = streamPause
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
		pause = min(2*pause, streamPauseMax)
	}
	return ctx.Err()
}

func (c *Client) setStreamed(up bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.streamed = up
	for _, s := range c.sessions {
		s.changes++ // what has been missed counts as a change
	}
}

// follow reads the stream until it ends.
func (c *Client) follow(ctx context.Context, emit func(bgagent.HostEvent), answers *sync.WaitGroup) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(streamSilence, func() { cancel(fmt.Errorf("nothing came for %v", streamSilence)) })
	defer silence.Stop()
	resp, err := c.send(ctx, http.MethodGet, "/global/event", nil, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	r := bufio.NewReaderSize(resp.Body, 64<<10)
	for {
		line, err := readLine(r)
		if err != nil {
			return because(ctx, err)
		}
		silence.Reset(streamSilence)
		data, ok := bytes.CutPrefix(line, []byte("data:"))
		if !ok {
			continue
		}
		for _, e := range c.event(ctx, data, answers) {
			emit(e)
		}
	}
}

// readLine returns the next line; one that is too long is returned as empty.
func readLine(r *bufio.Reader) (line []byte, err error) {
	long := false
	for {
		part, err := r.ReadSlice('\n')
		if long = long || len(line)+len(part) > maxEvent; long {
			line = nil
		} else {
			line = append(line, part...)
		}
		if err == nil {
			return line, nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return nil, err
		}
	}
}

// event takes one event of the server and returns what it tells.
func (c *Client) event(ctx context.Context, data []byte, answers *sync.WaitGroup) []bgagent.HostEvent {
	var w wireEvent
	var p wireProperties
	if json.Unmarshal(data, &w) != nil || len(w.Payload.Properties) > 0 && json.Unmarshal(w.Payload.Properties, &p) != nil {
		return nil // a kind of another version
	}
	one := func(e bgagent.HostEvent) []bgagent.HostEvent {
		e.Session = p.SessionID
		return []bgagent.HostEvent{e}
	}
	switch w.Payload.Type {
	case "server.connected":
		c.setStreamed(true)
		answers.Go(func() { c.answerOld(ctx, answers) })
		return one(bgagent.HostEvent{Kind: bgagent.HostStreamGap})
	case "server.heartbeat":
		return one(bgagent.HostEvent{Kind: bgagent.HostStreamBeat})
	case "session.created":
		c.adopt(p.Info)
	case "session.deleted":
		if p.SessionID == "" && p.Info != nil {
			p.SessionID = p.Info.ID
		}
		return one(bgagent.HostEvent{Kind: bgagent.HostDeleted})
	case "session.status":
		if p.Status != nil {
			return one(bgagent.HostEvent{Kind: bgagent.HostStatus, Status: c.status(p.SessionID, *p.Status)})
		}
	case "session.idle":
		return one(bgagent.HostEvent{Kind: bgagent.HostStatus, Status: c.status(p.SessionID, wireStatus{Type: "idle"})})
	case "session.error":
		// That of an abort comes late, perhaps after the next prompt. What was
		// aborted has a message that says so.
		if p.Error != nil && p.Error.Name != errAborted {
			return one(bgagent.HostEvent{Kind: bgagent.HostError, Stop: bgagent.StopError, Error: strings.TrimSpace(p.Error.Name + ": " + p.Error.Data.Message)})
		}
	case "todo.updated":
		return one(bgagent.HostEvent{Kind: bgagent.HostTodos, Todos: todos(p.Todos)})
	case "message.updated", "message.part.updated", "message.part.delta", "message.removed", "message.part.removed":
		c.changed(p.SessionID)
		return one(bgagent.HostEvent{Kind: bgagent.HostActivity})
	case "permission.asked":
		c.ask(ctx, w.Directory, wirePermission{p.ID, p.SessionID, p.Permission, p.Patterns, p.Metadata}, answers)
		return one(bgagent.HostEvent{Kind: bgagent.HostActivity})
	case "permission.replied":
		c.answered(p.SessionID)
		return one(bgagent.HostEvent{Kind: bgagent.HostActivity})
	case "question.asked":
		c.rejectQuestion(ctx, w.Directory, p, answers)
		return one(bgagent.HostEvent{Kind: bgagent.HostActivity})
	}
	return nil
}

// changed notes that a message of the session has.
func (c *Client) changed(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.sessions[id]; s != nil {
		s.changes++
	}
}

// adopt notes a session that one of a task's has made.
func (c *Client) adopt(made *wireSession) {
	if made == nil || made.ParentID == "" {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if up := c.sessions[made.ParentID]; up != nil && up.task && c.sessions[made.ID] == nil {
		c.sessions[made.ID] = &session{dir: made.Directory, task: true}
	}
}
