package opencode

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/bgagent/bgagent"
)

// textPause is how long the client collects pieces of text before it emits the messages to which they belong.
// Each event with a message copies the whole text of the message. Therefore, a single piece causes only an
// activity event.
const textPause = 100 * time.Millisecond

// The type "drawn" is a message that is assembled from the events in the stream.
type drawn struct {
	msg    wireMessage
	facts  facts
	joined bool              // the stream did not send the beginning, so pieces of text cannot be added
	grown  map[string][]byte // the text of growing parts, by part id
	dirty  bool              // the message has grown since it was last emitted
}

// message processes an event about a message.
func (f *follower) message(ctx context.Context, kind string, p eventProperties) {
	var info wireInfo
	if kind == "message.updated" {
		if lenient(json.Unmarshal(p.Info, &info)) != nil {
			return
		}
		p.MessageID = info.ID
		if p.SessionID == "" {
			p.SessionID = info.SessionID
		}
	} else if p.MessageID == "" {
		p.MessageID = p.Part.MessageID
	}
	ours, awaited := f.ours(p.SessionID)
	if p.MessageID == "" {
		return
	}
	if awaited == p.MessageID { // the message can also be a notice to a session that this client does not run
		f.begun(p.SessionID)
		delete(f.failed, p.SessionID)
	}
	if !ours {
		return
	}
	if kind == "message.removed" {
		delete(f.views[p.SessionID], p.MessageID)
		f.emit(bgagent.HostEvent{Kind: bgagent.HostActivity, Session: p.SessionID})
		return
	}
	d := f.views[p.SessionID][p.MessageID]
	if d == nil {
		if d = f.draw(ctx, kind, p, info); d == nil {
			f.lost()
			return
		}
		if !d.joined {
			d.update(kind, p, info)
		}
	} else if kind == "message.part.delta" {
		f.grow(p, d)
		return
	} else {
		d.update(kind, p, info)
	}
	if !f.fill(ctx, p.SessionID, d) {
		f.lost()
		return
	}
	f.told(p.SessionID, d)
}

// fill makes sure that the earlier messages of the turn are known if they determine what d does in the
// turn, for example whether it answers the prompt. If the stream did not send these messages, fill reads
// them from the server. It returns false if they are needed but cannot be read.
func (f *follower) fill(ctx context.Context, session string, d *drawn) bool {
	if f.full[session] {
		return true
	}
	d.look()
	needed := d.joined && d.msg.Info.Role == "assistant"
	for _, x := range f.views[session] {
		if x.facts.asks() {
			f.full[session] = true
			return true
		}
		needed = needed || x.facts.kind == kindCompaction || x.facts.kind == kindSummary || x.facts.kind == kindSelf
	}
	if !needed {
		return true
	}
	list, _, err := f.c.back(ctx, session, func(w *wireMessage) bool {
		m := w.message()
		fx := w.facts(&m)
		return fx.asks()
	})
	if err != nil && !missing(err) {
		return false
	}
	f.full[session] = true
	for i := range list {
		if id := list[i].Info.ID; f.views[session][id] == nil {
			x := &drawn{msg: list[i], joined: true, grown: map[string][]byte{}}
			x.look()
			f.views[session][id] = x
		}
	}
	return true
}

// look converts the message and determines its facts.
func (d *drawn) look() (m bgagent.Message) {
	m = d.msg.message()
	d.facts = d.msg.facts(&m)
	return m
}

// draw begins to assemble a message. If the stream might not have sent all of the message, the method
// "draw" reads the message from the server. If reading fails although the message might exist, the
// result is nil.
func (f *follower) draw(ctx context.Context, kind string, p eventProperties, info wireInfo) *drawn {
	d := &drawn{grown: map[string][]byte{}}
	user := kind == "message.updated" && info.Role == "user"
	if user {
		f.whole[p.SessionID] = true
	}
	if kind == "message.updated" && !user {
		f.c.asksAnew(p.SessionID)
	}
	if (user || kind == "message.updated" && f.whole[p.SessionID]) && !f.c.continued(p.SessionID, p.MessageID) {
		d.msg.Info = info
	} else {
		d.joined = true
		path := sessionPath(p.SessionID, "/message/"+url.PathEscape(p.MessageID))
		if err := f.c.do(ctx, call{method: http.MethodGet, path: path, out: &d.msg}); err != nil && !missing(err) {
			return nil
		}
	}
	if f.views[p.SessionID] == nil {
		f.views[p.SessionID] = map[string]*drawn{}
	}
	f.views[p.SessionID][p.MessageID] = d
	return d
}

// grow appends a piece of text to a part of the message.
func (f *follower) grow(p eventProperties, d *drawn) {
	if part := d.part(p.PartID); part != nil && p.Field == "text" && !d.joined {
		if d.grown[p.PartID] == nil {
			d.grown[p.PartID] = []byte(part.Text)
		}
		d.grown[p.PartID] = append(d.grown[p.PartID], p.Delta...)
		d.dirty = true
		if f.timer == nil {
			f.timer = time.AfterFunc(textPause, f.tick)
		}
	}
	f.emit(bgagent.HostEvent{Kind: bgagent.HostActivity, Session: p.SessionID})
}

func (d *drawn) part(id string) *wirePart {
	for i := range d.msg.Parts {
		if d.msg.Parts[i].ID == id {
			return &d.msg.Parts[i]
		}
	}
	return nil
}

// update stores the new state of a message or of one of its parts.
func (d *drawn) update(kind string, p eventProperties, info wireInfo) {
	switch kind {
	case "message.updated":
		d.msg.Info = info
	case "message.part.updated":
		delete(d.grown, p.Part.ID)
		if part := d.part(p.Part.ID); part != nil {
			*part = p.Part
		} else {
			d.msg.Parts = append(d.msg.Parts, p.Part)
		}
	case "message.part.removed":
		delete(d.grown, p.PartID)
		for i := range d.msg.Parts {
			if d.msg.Parts[i].ID == p.PartID {
				d.msg.Parts = append(d.msg.Parts[:i], d.msg.Parts[i+1:]...)
				break
			}
		}
	}
}

// The method "told" emits a message in its current state. A user's message is emitted only when its parts are
// known, because only the parts contain the prompt's id.
func (f *follower) told(session string, d *drawn) {
	for id, text := range d.grown {
		if part := d.part(id); part != nil {
			part.Text = string(text)
		}
	}
	d.dirty = false
	if d.msg.Info.ID == "" || d.msg.Info.Role == "user" && len(d.msg.Parts) == 0 {
		return
	}
	m := d.look()
	var t track
	view := f.views[session]
	for _, id := range slices.Sorted(maps.Keys(view)) { // sorting by id is sorting by time
		if x := view[id]; x != d {
			var other bgagent.Message
			t.next(x.facts, &other)
			continue
		}
		t.next(d.facts, &m)
		break
	}
	f.c.over(session).apply(t.prompt, &m)
	f.emit(bgagent.HostEvent{Kind: bgagent.HostMessage, Session: session, Message: &m})
	if d.facts.kind == kindCompaction && f.c.giveUp(session, t) {
		for _, x := range view { // giveUp changed the stop reasons of the agent's messages
			if x.facts.kind == kindAgent {
				f.told(session, x)
			}
		}
	}
}

// flush emits the messages that have grown in the given session. If session is empty, it does so for all
// sessions.
func (f *follower) flush(session string) {
	for id, view := range f.views {
		if session != "" && id != session {
			continue
		}
		for _, d := range view {
			if d.dirty {
				f.told(id, d)
			}
		}
	}
}
