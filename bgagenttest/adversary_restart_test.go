package bgagenttest

import (
	"context"
	"errors"
	"slices"

	"github.com/bgagent/bgagent"
)

var adversariesOfRestarts = []adversary{
	{check: "restart answered", how: "an answer is not found", also: []string{"restart twice"}, runner: func(b *badRunner) {
		afterRestore(b, func(_ bgagent.SessionRestore, a *restored) {
			if a.state == bgagent.PromptAnswered {
				a.state = bgagent.PromptInterrupted
			}
		})
	}},
	{check: "restart answered", how: "an answer is empty", also: []string{"restart twice"}, runner: func(b *badRunner) {
		afterRestore(b, func(_ bgagent.SessionRestore, a *restored) { a.end.Text = "" })
	}},
	{
		check: "restart interrupted", how: "half a turn counts as none", also: []string{"restart left", "restart without state", "restart twice"}, runner: func(b *badRunner) {
			afterRestore(b, func(_ bgagent.SessionRestore, a *restored) {
				if a.state == bgagent.PromptInterrupted {
					a.state = bgagent.PromptMissing
				}
			})
		},
	},
	{check: "restart interrupted", how: "it is never known", also: []string{"restart twice"}, runner: func(b *badRunner) {
		afterRestore(b, func(_ bgagent.SessionRestore, a *restored) {
			if a.state == bgagent.PromptInterrupted {
				a.state = bgagent.PromptUnknown
			}
		})
	}},
	{check: "restart left", how: "nothing is ended", runner: func(b *badRunner) {
		b.restore = func(ctx context.Context, r bgagent.SessionRestore) (bgagent.PromptState, bgagent.TurnEnd, error) {
			if left := b.running(r.Session); left != nil && left.left {
				return bgagent.PromptInterrupted, bgagent.TurnEnd{}, nil
			}
			return b.Runner.RestoreSession(ctx, r)
		}
	}},
	{
		check: "restart missing", how: "the newest turn counts", also: []string{"restart same text"}, runner: func(b *badRunner) {
			afterRestore(b, func(r bgagent.SessionRestore, a *restored) {
				if prompts := b.received(r.Session); len(prompts) > 0 && a.isMissing() && r.Last.ID != "" {
					*a = restored{state: bgagent.PromptAnswered}
				}
			})
		},
	},
	{check: "restart missing", how: "an unused session is an answered one", runner: func(b *badRunner) {
		afterRestore(b, func(r bgagent.SessionRestore, a *restored) {
			if len(b.received(r.Session)) == 0 && a.err == nil {
				*a = restored{state: bgagent.PromptAnswered}
			}
		})
	}},
	{check: "restart same text", how: "a prompt is known by its text", runner: func(b *badRunner) {
		afterRestore(b, func(r bgagent.SessionRestore, a *restored) {
			if a.isMissing() && slices.Contains(b.received(r.Session), r.Last.Text) {
				*a = restored{state: bgagent.PromptAnswered}
			}
		})
	}},
	{check: "restart no session", how: "it is interrupted", runner: func(b *badRunner) {
		afterRestore(b, func(r bgagent.SessionRestore, a *restored) {
			if r.Session != "" && errors.Is(a.err, bgagent.ErrNoSession) {
				*a = restored{state: bgagent.PromptInterrupted}
			}
		})
	}},
	{check: "restart no session", how: "the prompt is missing, but the session cannot be prompted", runner: func(b *badRunner) {
		afterRestore(b, func(_ bgagent.SessionRestore, a *restored) {
			if errors.Is(a.err, bgagent.ErrNoSession) {
				*a = restored{state: bgagent.PromptMissing}
			}
		})
	}},
	{check: "restart no session", how: "a session without an id is interrupted", runner: func(b *badRunner) {
		afterRestore(b, func(r bgagent.SessionRestore, a *restored) {
			if r.Session == "" {
				*a = restored{state: bgagent.PromptInterrupted}
			}
		})
	}},
	{check: "restart unknown", how: "what cannot be read is missing", runner: func(b *badRunner) {
		afterRestore(b, func(_ bgagent.SessionRestore, a *restored) {
			if a.state == bgagent.PromptUnknown && a.err == nil {
				a.state = bgagent.PromptMissing
			}
		})
	}},
	{check: "restart unknown", how: "what cannot be read is answered", runner: func(b *badRunner) {
		afterRestore(b, func(_ bgagent.SessionRestore, a *restored) {
			if a.state == bgagent.PromptUnknown && a.err == nil {
				*a = restored{state: bgagent.PromptAnswered}
			}
		})
	}},
	{check: "restart busy", how: "an old turn is not noticed", runner: func(b *badRunner) {
		afterRestore(b, func(_ bgagent.SessionRestore, a *restored) {
			if errors.Is(a.err, bgagent.ErrBusy) {
				*a = restored{state: bgagent.PromptInterrupted}
			}
		})
	}},
	{check: "restart without state", how: "no state means no prompt", runner: func(b *badRunner) {
		afterRestore(b, func(r bgagent.SessionRestore, a *restored) {
			if r.Saved == nil && a.err == nil {
				a.state = bgagent.PromptMissing
			}
		})
	}},
	{check: "restart without state", how: "a state that cannot be read means no session", runner: func(b *badRunner) {
		afterRestore(b, func(r bgagent.SessionRestore, a *restored) {
			if slices.Contains(r.Saved, 0) {
				a.err = bgagent.ErrNoSession
			}
		})
	}},
	{
		check: "restart next prompt", how: "old sessions cannot be prompted", also: []string{"restart missing", "restart resumed", "restart memory", "restart twice"}, runner: func(b *badRunner) {
			own := &guardedSet{}
			b.create = func(ctx context.Context, s bgagent.SessionSpec) (string, error) {
				id, err := b.Runner.CreateSession(ctx, s)
				own.add(id)
				return id, err
			}
			b.run = func(ctx context.Context, id string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
				if !own.has(id) {
					return bgagent.TurnEnd{}, bgagent.ErrNoSession
				}
				return b.Runner.RunTurn(ctx, id, p, r)
			}
		},
	},
	{check: "restart resumed", how: "a prompt is required", runner: func(b *badRunner) {
		afterRestore(b, func(r bgagent.SessionRestore, a *restored) {
			if r.Last.ID == "" {
				*a = restored{err: errBroken}
			}
		})
	}},
	{check: "restart twice", how: "a session can be restored once", runner: func(b *badRunner) {
		afterRestore(b, func(r bgagent.SessionRestore, a *restored) {
			n := 0
			for _, x := range b.Restored() {
				if x.Session == r.Session && x.Last.ID == r.Last.ID {
					n++
				}
			}
			if n > 1 && a.state == bgagent.PromptInterrupted {
				a.state = bgagent.PromptMissing
			}
		})
	}},
	{check: "restart twice", how: "the state of a restored session is lost", runner: func(b *badRunner) {
		old := &guardedSet{}
		afterRestore(b, func(r bgagent.SessionRestore, a *restored) {
			if old.add(r.Session); string(r.Saved) == "lost" {
				*a = restored{}
			}
		})
		b.run = func(ctx context.Context, id string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			end, err := b.Runner.RunTurn(ctx, id, p, r)
			if old.has(id) {
				r.SaveState([]byte("lost"))
			}
			return end, err
		}
	}},
	{check: "restart memory", how: "the conversation begins anew", runner: func(b *badRunner) {
		old := &guardedSet{}
		afterRestore(b, func(r bgagent.SessionRestore, _ *restored) { old.add(r.Session) })
		b.run = func(ctx context.Context, id string, p bgagent.Prompt, r *bgagent.Reporter) (bgagent.TurnEnd, error) {
			if p.Text == "recall" && old.has(id) {
				id, _ = b.Runner.CreateSession(ctx, bgagent.SessionSpec{Agent: p.Agent})
			}
			return b.Runner.RunTurn(ctx, id, p, r)
		}
	}},
	{check: "restart no request", how: "the agent is asked", runner: func(b *badRunner) {
		b.restore = func(ctx context.Context, r bgagent.SessionRestore) (bgagent.PromptState, bgagent.TurnEnd, error) {
			state, end, err := b.Runner.RestoreSession(ctx, r)
			if state == bgagent.PromptInterrupted {
				_, _ = b.RunTurn(ctx, r.Session, bgagent.Prompt{Text: "say where you are"}, nil)
			}
			return state, end, err
		}
	}},
	{check: "restart followed", how: "only its own turns are seen", starter: func(b *badStarter) {
		own := &guardedSet{}
		b.start = func(ctx context.Context, id string, p bgagent.Prompt) error {
			own.add(id)
			return b.Starter.StartTurn(ctx, id, p)
		}
		b.statuses = func(ctx context.Context, ids []string) (map[string]bgagent.SessionStatus, error) {
			all, err := b.Starter.Statuses(ctx, ids)
			for id, s := range all {
				if s.State == bgagent.SessionBusy && !own.has(id) {
					all[id] = bgagent.SessionStatus{State: bgagent.SessionIdle}
				}
			}
			return all, err
		}
	}},
	{check: "restart followed", how: "a cursor of another process is at the end", starter: func(b *badStarter) {
		own := &guardedSet{}
		b.messages = func(ctx context.Context, id string, after bgagent.Cursor, most int) (bgagent.Page, error) {
			if after != "" && !own.has(string(after)) {
				return bgagent.Page{Next: after}, nil
			}
			page, err := b.Starter.Messages(ctx, id, after, most)
			own.add(string(page.Next))
			return page, err
		}
	}},
	{check: "restart repeated prompt", how: "only its own prompts are recognized", starter: func(b *badStarter) {
		own := &guardedSet{}
		b.start = func(ctx context.Context, id string, p bgagent.Prompt) error {
			if repeated := slices.ContainsFunc(b.Prompts(), func(x bgagent.Prompt) bool { return x.ID == p.ID }); repeated && !own.has(p.ID) {
				p.ID += "'"
			}
			own.add(p.ID)
			return b.Starter.StartTurn(ctx, id, p)
		}
	}},
	{check: "restart other instances", how: "everything is ended", runner: func(b *badRunner) {
		b.restore = func(ctx context.Context, r bgagent.SessionRestore) (bgagent.PromptState, bgagent.TurnEnd, error) {
			state, end, err := b.Runner.RestoreSession(ctx, r)
			if err == nil {
				b.letGo()
			}
			return state, end, err
		}
	}},
	{check: "restart other instances", how: "its own instance is ended", runner: func(b *badRunner) {
		b.restore = func(ctx context.Context, r bgagent.SessionRestore) (bgagent.PromptState, bgagent.TurnEnd, error) {
			if b.alone(r.Instance) == 0 && b.running(r.Session) == nil {
				b.endInstance(r.Instance)
			}
			return b.Runner.RestoreSession(ctx, r)
		}
	}},
}

// afterRestore makes the runner's RestoreSession call the function "change", which can modify the results.
func afterRestore(b *badRunner, change func(r bgagent.SessionRestore, a *restored)) {
	b.restore = func(ctx context.Context, r bgagent.SessionRestore) (bgagent.PromptState, bgagent.TurnEnd, error) {
		var a restored
		a.state, a.end, a.err = b.Runner.RestoreSession(ctx, r)
		change(r, &a)
		return a.state, a.end, a.err
	}
}

// The method "running" returns the turn that is running in the session, or nil.
func (b *badRunner) running(session string) *Turn {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := b.sessions[session]; s != nil {
		return s.run
	}
	return nil
}

// The method "received" returns the texts of the prompts that the session has received.
func (b *badRunner) received(session string) (texts []string) {
	for _, x := range b.Received() {
		if x.Session == session {
			texts = append(texts, x.Text)
		}
	}
	return texts
}

// endInstance aborts all turns whose prompts have the given instance.
func (b *badRunner) endInstance(instance string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.sessions {
		if s.run != nil && s.run.Prompt.Instance == instance {
			s.run.cancel(errAborted)
		}
	}
}
