package bgnats

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// streamConfig contains the stream settings on which a store relies. The other settings are up to
// the operator.
type streamConfig struct {
	Name       string        `json:"name"`
	Subjects   []string      `json:"subjects"`
	Retention  string        `json:"retention"`
	Storage    string        `json:"storage"`
	Discard    string        `json:"discard"`
	Replicas   int           `json:"num_replicas"`
	PerSubject int           `json:"max_msgs_per_subject"`
	MaxAge     time.Duration `json:"max_age"`
	MaxMsgs    int           `json:"max_msgs"`
	MaxMsgSize int           `json:"max_msg_size"`
	Direct     bool          `json:"allow_direct"`
	Atomic     bool          `json:"allow_atomic"`
	TTL        bool          `json:"allow_msg_ttl"`
	NoAck      bool          `json:"no_ack"`
	DenyPurge  bool          `json:"deny_purge"`

	MaxConsumers int   `json:"max_consumers"`
	MaxBytes     int64 `json:"max_bytes"`
}

func (n names) config(replicas int) streamConfig {
	return streamConfig{
		Name: n.stream, Subjects: n.subjects(), Retention: "limits", Storage: "file", Discard: "new", Replicas: replicas, PerSubject: 1,
		MaxMsgs: -1, MaxMsgSize: -1, Direct: true, Atomic: true, TTL: true, MaxConsumers: -1, MaxBytes: -1,
	}
}

// The method "wrong" describes the settings that could make the stream lose records. If there are none, it
// returns "".
func (c streamConfig) wrong(want streamConfig) string {
	var all []string
	check := func(name string, have, need any) {
		if have != need {
			all = append(all, fmt.Sprintf("%s is %v and must be %v", name, have, need))
		}
	}
	check("subjects", fmt.Sprint(c.Subjects), fmt.Sprint(want.Subjects))
	check("retention", c.Retention, want.Retention)
	check("storage", c.Storage, want.Storage)
	check("discard", c.Discard, want.Discard)
	check("max_msgs_per_subject", c.PerSubject, want.PerSubject)
	check("max_age", c.MaxAge, want.MaxAge)
	check("max_msgs", c.MaxMsgs, want.MaxMsgs)
	check("max_msg_size", c.MaxMsgSize, want.MaxMsgSize)
	check("allow_direct", c.Direct, want.Direct)
	check("allow_atomic", c.Atomic, want.Atomic)
	check("allow_msg_ttl", c.TTL, want.TTL)
	check("no_ack", c.NoAck, want.NoAck)
	check("deny_purge", c.DenyPurge, want.DenyPurge)
	return strings.Join(all, ", ")
}

// streamInfo contains what a store needs from the servers' description of a stream.
type streamInfo struct {
	Config streamConfig `json:"config"`
	State  struct {
		Bytes int64 `json:"bytes"`
	} `json:"state"`
}

// ensure creates the stream if it does not exist, and otherwise checks its settings.
func (w *wire) ensure(ctx context.Context, want streamConfig) error {
	var info streamInfo
	err := w.patiently(ctx, func(ctx context.Context) error {
		err := w.call(ctx, "STREAM.INFO."+w.stream, nil, &info)
		if isCode(err, codeNoStream) {
			err = w.call(ctx, "STREAM.CREATE."+w.stream, want, &info)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("the stream %s cannot be opened: %w", w.stream, err)
	}
	if wrong := info.Config.wrong(want); wrong != "" {
		return fmt.Errorf("the stream %s cannot be used: %s", w.stream, wrong)
	}
	return nil
}
