package bgagent

import "context"

// ShowsQuestions plays a tool whose answer shows the questions of the task, as they are in this copy.
func ShowsQuestions(m *BackgroundManager, by Caller, shown Task) {
	c := newCall(context.Background(), m, by, m.words)
	c.showsQuestions(shown)
	c.leaves()
}
