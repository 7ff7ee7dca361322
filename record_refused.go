package bgagent

import "time"

// refusedRecord is the part of a task's record that describes the refusals of its turns.
type refusedRecord struct {
	Kind       ProviderErrorKind `json:"kind,omitempty"` // kind of the latest refusal; zero if the turn could not begin
	Status     int               `json:"status,omitempty"`
	Message    string            `json:"message,omitempty"`
	Step       nextStep          `json:"step"`
	Unanswered string            `json:"unanswered,omitempty"` // id of the session's prompt that the provider has not answered
	Prompt     string            `json:"prompt,omitempty"`     // name of the next prompt's text
	Told       *Notice           `json:"told,omitempty"`       // notice that the next prompt repeats
	Since      time.Time         `json:"since"`
	RetryAt    time.Time         `json:"retry_at,omitzero"` // time that the provider gave
	Until      time.Time         `json:"until,omitzero"`    // time before which no turn begins in the pool
	Limit      time.Time         `json:"limit,omitzero"`    // when the attempt ends if it is still waiting
	Tries      int               `json:"tries,omitempty"`
	Turns      int               `json:"turns,omitempty"`      // number of refused turns; Tries counts requests
	PoolTries  int               `json:"pool_tries,omitempty"` // number of refused requests in a row in the pool
	Provider   bool              `json:"provider,omitempty"`   // all pools of the provider were cooling down
	FallAt     time.Time         `json:"fall_at,omitzero"`     // when the attempt continues with another model
	Falls      bool              `json:"falls,omitempty"`      // the attempt continues with another model once an Abort call has returned
	Ends       Cause             `json:"ends,omitempty"`       // cause with which the attempt ends if it must fall back but no other model is left
	EndsWhy    string            `json:"ends_why,omitempty"`
	Fell       string            `json:"fell,omitempty"` // why the attempt's model differs from that of the previous attempt; empty once a turn of the attempt has begun
}

// fallenRecord is the part of a task's record that describes the models with which the task has
// run.
type fallenRecord struct {
	Tried []string `json:"tried"` // models before the current one
	Why   string   `json:"why"`
	Calls bool     `json:"calls,omitempty"` // an attempt with one of the models in Tried might have called a tool
	Steps int32    `json:"steps,omitempty"` // number of attempts that continued with another model
}

func recordFallen(t *task) *fallenRecord {
	f := t.fallen()
	if f == nil {
		return nil
	}
	return &fallenRecord{f.tried, f.why, f.calls, f.steps}
}

func (t *task) loadFallen(x *fallenRecord) {
	if x != nil {
		t.extra().fallen = &fallen{x.Tried, x.Why, x.Calls, x.Steps}
	}
}

// recordRefused makes the record of the refusals of an attempt's turns. It returns nil if there are
// none.
func (st *state) recordRefused(a *attempt, r *recorded) *refusedRecord {
	f := a.refused
	if f == nil || a.ended {
		return nil
	}
	return &refusedRecord{
		Kind: f.kind, Status: f.status, Message: f.message, Step: f.step, Unanswered: f.unanswered, Tries: f.tries, Turns: f.turns,
		PoolTries: f.poolTries, Provider: f.provider, FallAt: st.wall(f.fallAt), Falls: f.falls, Ends: f.ends, EndsWhy: f.endsWhy, Fell: f.fell, Told: f.told,
		Prompt: r.name("refused."+contentID(f.prompt), f.prompt),
		Since:  st.wall(f.since), RetryAt: st.wall(f.retryAt), Until: st.wall(f.until), Limit: st.wall(f.limit),
	}
}

// loadRefused restores the refusals that the record describes.
func (st *state) loadRefused(x *refusedRecord, texts map[string]string) *refused {
	if x == nil {
		return nil
	}
	return &refused{
		kind: x.Kind, status: x.Status, message: x.Message, step: x.Step, unanswered: x.Unanswered, prompt: texts[x.Prompt], tries: x.Tries, turns: x.Turns,
		poolTries: x.PoolTries, provider: x.Provider, fallAt: st.at(x.FallAt), falls: x.Falls, ends: x.Ends, endsWhy: x.EndsWhy, fell: x.Fell, told: x.Told,
		since: st.at(x.Since), retryAt: st.at(x.RetryAt), until: st.at(x.Until), limit: st.at(x.Limit),
	}
}

// The method "possible" reports whether the record describes refusals that can really have
// happened.
func (x *refusedRecord) possible() bool {
	return x == nil || x.Step < nextSteps && x.Tries >= 0 && x.Turns >= 0 && x.PoolTries >= 0 && !x.Since.IsZero() && (x.Ends == CauseNone || x.Ends.Status() == Failed)
}
