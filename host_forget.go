package bgagent

// tellForgotten calls ForgetSession for every forgotten session.
func (m *BackgroundManager) tellForgotten() {
	for {
		var list []forgotten
		m.update(func(st *state, _ int64) {
			list = st.forget
			st.forget, st.forgetting = nil, len(list) > 0
		})
		if len(list) == 0 {
			return
		}
		m.each(goForget, 0, len(list), func(i int) { m.host(list[i].cl).forgetter.ForgetSession(list[i].session) }, m.tellForgotten)
	}
}
