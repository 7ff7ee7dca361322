package main

// sessions are the root sessions that delegate.
var sessions = []string{"checkout: flaky payment test", "api: rate limits", "docs: release notes 2.4", "search: slow queries"}

// job is a piece of work that a session delegates.
type job struct{ agent, title, prompt string }

var jobs = []job{
	{"explore", "Find where payments are retried", "List every call site with file and line."},
	{"explore", "Find the callers of LimitReader", "Look in tests as well."},
	{"explore", "Map the search package", "Which types does it export, and who uses them?"},
	{"explore", "Find flaky tests of the last week", "Read the logs of the last 50 runs."},
	{"explore", "Where are the release notes generated?", "Include scripts."},
	{"librarian", "Read up on token buckets", "Compare two implementations and name the trade-offs."},
	{"librarian", "Summarize the Postgres planner's hints", "At most one page."},
	{"librarian", "What has changed in HTTP/2 of Go 1.26?", "Only what concerns clients."},
	{"librarian", "Collect the merged changes since 2.3", "Group them by area."},
	{"oracle", "Judge the retry design", "What can go wrong when the gateway answers late?"},
	{"oracle", "Is the index worth its price?", "Estimate the cost of writing."},
	{"oracle", "Choose between two rate limiters", "Say which, and why."},
	{"reviewer", "Review the change to the client's timeouts", "Look for races."},
	{"reviewer", "Review the migration of the orders table", "Can it be rolled back?"},
	{"builder", "Make the payment test deterministic", "Split the work and put the parts together."},
	{"builder", "Add rate limits to the public API", "Split the work and put the parts together."},
	{"builder", "Speed up the search for orders", "Split the work and put the parts together."},
}

var models = map[string]string{
	"explore":   "anthropic/claude-haiku-4-5",
	"librarian": "openai/gpt-5.2",
	"oracle":    "anthropic/claude-opus-4-5",
	"reviewer":  "google/gemini-3-pro",
	"builder":   "anthropic/claude-sonnet-4-5",
}

var toolsOf = map[string][]string{
	"explore":   {"grep", "read", "glob", "grep", "list"},
	"librarian": {"webfetch", "read", "search"},
	"oracle":    {"read", "think", "grep"},
	"reviewer":  {"diff", "read", "bash", "grep"},
}

var remarks = []string{
	"Three call sites look relevant; the one in gateway.go retries without a bound.",
	"The test passes alone and fails beside others, so the order matters.",
	"That is not used anywhere any more.",
	"The timeout is taken before the lock, which explains the gap.",
	"Two of the five results are duplicates.",
	"Reading the older version to compare.",
	"The query scans the whole table when the customer has no orders.",
	"Nothing in the documentation speaks against it.",
}

var answers = []string{
	"The retry in gateway.go:112 has no bound. A late answer is counted twice, which is what the test sees. Bounding it to three attempts and using the request's id fixes both.",
	"Use the token bucket: it allows short bursts, needs one number per client and no timer. The sliding window is exact, which nothing here needs.",
	"The index pays from about 40 reads per write. Today there are 300. It costs 180 MB and 6 % of the time to write.",
	"Two races: the timer is stopped after the channel is read, and the map is shared with the handler. Everything else is fine.",
	"Everything asked for is done, and the tests pass.",
}
