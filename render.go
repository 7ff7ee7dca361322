package bgagent

import "time"

func renderNotice(n Notice, now time.Time) string                          { return n.ID }
func renderDigest(tasks []Task, live, owed, max int, now time.Time) string { return "" }
