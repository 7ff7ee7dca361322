package bgagent

import (
	"context"
	"errors"
)

// The code in this file delivers notices to root sessions. The session of a task gets its notices
// differently, as the prompt of its next turn.

// deliver delivers the notices that are owed to a root session, until no notice is due. At most one
// goroutine per node runs this method at any time.
func (m *BackgroundManager) deliver(n *node) {
	growStack[frame8K](false)
	for {
		seen, cl := m.parentState(n.session)
		var env *envelope
		m.update(func(st *state, now int64) {
			env = st.beginDelivery(n, seen, cl, now)
		})
		if env == nil {
			return
		}
		text := m.words.told(env.notice).Text
		if m.cfg.Store != nil {
			sealed := m.sealNotice(n, env, text)
			m.update(func(st *state, _ int64) {
				// During the write, Close or Suspend might have begun, or everything in the notice
				// might have been settled.
				if sealed = sealed && !st.closing && !env.empty(); !sealed {
					st.abandonDelivery(n, env)
				}
			})
			if !sealed {
				return
			}
		}
		answer, detail := noticeRecorded, ""
		switch err := m.notify(cl, n.session, &env.notice, text); {
		case err == nil:
		case errors.Is(err, ErrBusy):
			answer = noticeBusy
		case errors.Is(err, ErrNoSession) || errors.Is(err, errors.ErrUnsupported):
			answer = noticeNobody
		default:
			answer, detail = noticeFailed, err.Error()
		}
		m.update(func(st *state, now int64) { st.endDelivery(n, env, answer, detail, now) })
	}
}

// parentState requests the status of a root session from the clients that report statuses. It
// returns the answer from the first client that knows whether the session is idle or busy,
// together with that client.
func (m *BackgroundManager) parentState(session string) (state parentState, by *client) {
	for _, cl := range m.hosts {
		if cl.starter == nil {
			continue
		}
		if cl.finder != nil {
			_, err := within(m.base, m, goCall, "FindSession", m.cfg.CallTimeout, func(ctx context.Context) (SessionInfo, error) {
				info, err := cl.finder.FindSession(ctx, session)
				return info, lookedAt(err)
			})
			if errors.Is(err, ErrNoSession) {
				continue
			}
			if err != nil && !errors.Is(err, errors.ErrUnsupported) {
				state = parentUnsure
				continue
			}
		}
		answer, err := within(m.base, m, goPoll, "Statuses", m.cfg.StatusTimeout, func(ctx context.Context) (map[string]SessionStatus, error) {
			answer, err := cl.starter.Statuses(ctx, []string{session})
			return answer, lookedAt(err)
		})
		if errors.Is(err, errors.ErrUnsupported) {
			continue
		}
		if err != nil {
			state = parentUnsure
			continue
		}
		switch answer[session].State {
		case SessionGone, SessionUntold:
		case SessionIdle:
			return parentReady, cl.rec
		case SessionBusy, SessionRetrying, SessionAsking:
			return parentBusy, cl.rec
		default:
			if state == parentReady {
				state = parentSilent
			}
		}
	}
	return state, nil
}

// notify passes a notice to the host. If Config.Notify is nil, notify calls the clients that are notifiers,
// one after another, until it finds one that knows the session. If the argument "by" is not nil, it is a
// client that knows the session, and this client is called first. The argument "text" is the text of the
// notice.
func (m *BackgroundManager) notify(by *client, session string, n *Notice, text string) error {
	call := func(f func(context.Context, string, Notice) error) error {
		_, err := within(m.base, m, goNotify, "Notify", m.cfg.CallTimeout, func(ctx context.Context) (struct{}, error) {
			// Pass a copy, because the host might change the notice, and a repetition must deliver it unchanged.
			told := n.clone()
			told.Text = text
			return struct{}{}, lookedAt(f(ctx, session, told))
		})
		return err
	}
	if m.cfg.Notify != nil {
		return call(m.cfg.Notify)
	}
	hosts := m.hosts
	if by != nil {
		hosts = append([]*hostClient{m.host(by)}, hosts...)
	}
	for i, cl := range hosts {
		if cl.notifier == nil || i > 0 && cl.rec == by {
			continue
		}
		if err := call(cl.notifier.Notify); !errors.Is(err, ErrNoSession) && !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
	}
	return ErrNoSession
}
