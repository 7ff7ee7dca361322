// Package bgnats connects managers over NATS. [Slots] implements [bgagent.SlotSource]: it applies
// limits to several processes together. [Store] implements [bgagent.Store]: it keeps a manager's
// tasks in JetStream.
//
//	nc, err := nats.Connect("nats://10.0.0.1,nats://10.0.0.2,nats://10.0.0.3", nats.MaxReconnects(-1))
//	slots, err := bgnats.NewSlots(ctx, nc, "agents", bgnats.SlotOptions{Limits: limits, Replicas: 3})
//	m, err := bgagent.New(client, bgagent.Config{Slots: slots})
//
// The rest of this comment describes the store.
//
//	nc, err := nats.Connect("nats://10.0.0.1,nats://10.0.0.2,nats://10.0.0.3", nats.MaxReconnects(-1))
//	store := bgnats.NewStore(nc, "tasks", bgnats.StoreOptions{Replicas: 3})
//	m, err := bgagent.New(client, bgagent.Config{Store: store})
//
// The servers must run version 2.12 or newer, with JetStream enabled. The package is not named nats, because
// that is the name of the client library. The module nats/embedded runs a server in the process.
//
// At any time, only one manager owns the store. If its process dies, a manager on the same or another machine
// takes over the store. The page docs/cluster.md describes the guarantees of a store, and how to run the
// servers.
//
// # Messages
//
// A store with the name tasks is the stream BGAGENT_tasks. Only the last message on each subject is kept.
//
//   - bgagent.tasks.m is about the store itself. Each batch ends with a message on this subject.
//   - bgagent.tasks.r.KEY is a record. Its headers contain the fields, and its body contains the
//     data. When the record is deleted, a message with the header Bgagent-Deleted takes its place
//     for 7 days.
//   - bgagent.tasks.x.KEY.NAME.N is part N of a text, or of data longer than 128 KiB.
//   - bgagent.tasks.j.ID.N is part N of a batch that is too large for the servers to accept at once.
//
// In subjects, keys and names are encoded as the letter k and base64url. If they are very long, they are
// encoded as the letter h and their SHA-256. People can read a store with the program nats:
//
//	nats stream get BGAGENT_tasks --last-for bgagent.tasks.r.k$(printf %s bg_… | basenc --base64url -w0 | tr -d =)
//
// Prompts and answers are stored as plain text. The format might change in a new version.
package bgnats
