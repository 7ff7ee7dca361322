package bgagent

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/bgagent/bgagent/internal/mdtext"
)

const (
	sessionPageSize = 100
	sessionPages    = 100 // most pages that one call of full_session reads
)

// session reads a task's messages and returns how to show them, or what is wrong.
func (o *outputCall) session(t Task) (render func(room int) answer, problem string, err error) {
	if t.Session == "" {
		if t.Status.Terminal() {
			return nil, "Task " + mdtext.Code(t.ID, idMax) + " never got a session, so it has no messages. Leave out full_session to read why.", nil
		}
		return func(int) answer {
			return o.w.status(t, time.Now(), append(o.notes, noteNoSessionYet)...)
		}, "", nil
	}
	all, partial, err := o.messages(t.ID)
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		return nil, "The messages of this session cannot be read: the program that runs the agent does not show them. Leave out full_session to read the task itself.", nil
	case errors.Is(err, ErrNoSession):
		return nil, "The session of task " + mdtext.Code(t.ID, idMax) + " does not exist any more, so its messages cannot be read. Leave out full_session to read what was kept.", nil
	case err != nil:
		problem, err = o.problem(err, t.ID)
		return nil, problem, err
	}
	p := sessionPage{messages: all, first: 1, total: len(all), partial: partial, offset: o.args.Offset, fromEnd: o.args.FromEnd}
	if since := o.args.SinceMessageID; since != "" {
		i := slices.IndexFunc(all, func(m Message) bool { return m.ID == since })
		if i < 0 {
			return nil, fmt.Sprintf("The session has no message %s. Leave out since_message_id to read from the beginning, or set from_end=true to read the end.", mdtext.Code(since, idMax)), nil
		}
		p.before, p.first, p.messages = since, i+2, all[i+1:]
	}
	if over := len(p.messages) - o.args.MessageLimit; over > 0 {
		if p.fromEnd {
			p.before, p.messages, p.first = p.messages[over-1].ID, p.messages[over:], p.first+over
		} else {
			p.messages = p.messages[:o.args.MessageLimit]
		}
	}
	return func(room int) answer { return o.w.session(t, p, time.Now(), room, o.notes...) }, "", nil
}

// messages reads all messages of a task's session, each in its latest version. partial is true if
// there are more than it reads.
func (o *outputCall) messages(id string) (all []Message, partial bool, err error) {
	at := map[string]int{}
	var cursor Cursor
	for range sessionPages {
		page, err := o.m.Messages(o.ctx, o.by, id, cursor, sessionPageSize)
		if err != nil {
			return nil, false, err
		}
		for _, m := range page.Messages {
			if i, ok := at[m.ID]; ok && m.ID != "" {
				all[i] = m // it has changed since the first version
				continue
			}
			at[m.ID] = len(all)
			all = append(all, m)
		}
		if !page.More || page.Next == cursor {
			return all, false, nil
		}
		cursor = page.Next
	}
	return all, true, nil
}
