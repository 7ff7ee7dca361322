package bgagent

// ConcurrencyManager stub.
type ConcurrencyManager struct{}

// PoolStats are the figures of one pool.
type PoolStats struct {
	Name    string `json:"name"`  // of the entry that decided: "model claude-opus", "provider anthropic", "default openai/gpt", "agent explore"
	Limit   int    `json:"limit"` // Unlimited for none
	InUse   int    `json:"in_use"`
	Waiting int    `json:"waiting"`
}
