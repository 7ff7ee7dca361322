package bgagent

import "context"

// ShowsQuestions acts like a tool whose result shows the questions in the given copy of a task.
func ShowsQuestions(m *BackgroundManager, by Caller, shown Task) {
	c := newCall(context.Background(), m, by, m.words, nil)
	c.showsQuestions(shown)
	c.leaves()
}
