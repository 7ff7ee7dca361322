package bgagent

import "context"

// learnFallback asks the client how the agent continues with another model, unless the answer is
// already known or Config has no fallbacks. The lock must not be held.
func (m *BackgroundManager) learnFallback(cl *client, agent string) {
	h := m.host(cl)
	if len(m.cfg.Fallback) == 0 || h.fallback == nil {
		return
	}
	known := false
	m.view(func(*state) { _, known = cl.fallbacks[agent] })
	if known {
		return
	}
	way, err := within(m.base, m, goCall, "Fallback", m.cfg.CallTimeout, func(context.Context) (FallbackWay, error) {
		return h.fallback.Fallback(agent), nil
	})
	if err != nil { // the client is asked again for the next task
		return
	}
	m.update(func(*state, int64) {
		if cl.fallbacks == nil {
			cl.fallbacks = map[string]FallbackWay{}
		}
		cl.fallbacks[agent] = way
	})
}

// learnFallbacks calls learnFallback for the agents of the earlier process's tasks.
func (m *BackgroundManager) learnFallbacks() {
	agents := map[kindKey]*client{}
	m.view(func(st *state) {
		for _, t := range st.recovery.tasks {
			k := t.kind
			agents[kindKey{agent: k.key.agent, client: k.key.client}] = k.cl
		}
	})
	for k, cl := range agents {
		m.learnFallback(cl, k.agent)
	}
}
