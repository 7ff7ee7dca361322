// Package control lets commands in a terminal inspect and control a running "bgagent serve".
//
// The server listens on a separate loopback port and writes the address and a secret token into a
// file next to its store. Only the user can read the file. This works in the same way on all
// systems. A Unix socket would not: its path could be longer than the system allows, and Windows
// protects such sockets differently. A separate port keeps these requests away from other machines,
// from reverse proxies, and from the server's callers, tokens and passwords.
//
// The file contains the server's instance id. If another instance owns the store, the file is left over from
// a killed server, and clients send nothing to its address.
//
// However, another program can have this address: for example, 127.0.0.1 in a container is not the
// host's 127.0.0.1. Therefore, each connection begins with a challenge that only a program with the
// token can answer, and the client sends the token and the requests only after the right answer.
package control

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/bgagent/bgagent"
	bgnats "github.com/bgagent/bgagent/nats"
)

// fileName is the name of the file in the store's folder that contains the address.
const fileName = "control.json"

// address is the content of the file.
type address struct {
	Address  string `json:"address"` // HOST:PORT
	Token    string `json:"token"`
	Instance string `json:"instance"` // instance id of the manager
}

// write writes the file. Only the user can read it.
func (a address) write(dir string) error {
	b, err := json.Marshal(a)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, fileName)
	part := path + ".part"
	_ = os.Remove(part) // an existing file would keep its mode
	if err := os.WriteFile(part, append(b, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(part, path)
}

// read reads the file. If there is no file, the result "found" is false.
func read(dir string) (a address, found bool, err error) {
	f, err := os.Open(filepath.Join(dir, fileName))
	if errors.Is(err, fs.ErrNotExist) {
		return a, false, nil
	}
	if err != nil {
		return a, false, err
	}
	defer f.Close()
	if err = onlyMine(f); err == nil {
		err = json.NewDecoder(f).Decode(&a)
	}
	if err == nil {
		host, _, _ := net.SplitHostPort(a.Address)
		if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
			err = fmt.Errorf("the address %q in %s is not on this machine", a.Address, fileName)
		}
	}
	return a, err == nil, err
}

// challenge is the request with which each connection begins. Its nonce is random.
type challenge struct {
	Nonce string `json:"nonce"`
}

// proof is the answer to a challenge.
type proof struct {
	Proof []byte `json:"proof"`
}

// prove answers a challenge. The answer does not reveal the token, and is not a token itself.
func (a address) prove(c challenge) proof {
	h := hmac.New(sha256.New, []byte(a.Token))
	_, _ = h.Write([]byte("bgagent control\x00" + a.Instance + "\x00" + c.Nonce)) // never fails
	return proof{h.Sum(nil)}
}

// Info describes a server.
type Info struct {
	MCP  string `json:"mcp"`            // address of the tools
	Page string `json:"page,omitempty"` // address of the page; empty if there is no page
	// Silent is how long a working task can report nothing before it is shown as silent. In JSON, it is in
	// nanoseconds. 0 means that no task is shown as silent.
	Silent time.Duration `json:"silent,omitempty"`
}

// Status describes what a server is doing.
type Status struct {
	Info
	Pools []bgagent.PoolStats `json:"pools"`
	Tasks []bgagent.Task      `json:"tasks"` // the tasks that have not ended, without prompts and results
}

// TaskInput names a task by its id or by the id of its session.
type TaskInput struct {
	ID string `json:"id"`
}

// ClusterInput asks for the tasks of all processes of the server's cluster.
type ClusterInput struct {
	Ended int `json:"ended"` // maximum number of ended tasks of each process
}

// ClusterProcess is a process of the cluster, with its tasks.
type ClusterProcess struct {
	bgnats.ProcessTasks
	Problem string `json:"problem,omitempty"` // why the list is not complete
}

// SharedTask is a task of any process of the server's cluster.
type SharedTask struct {
	Task    bgagent.Task   `json:"task"`
	Process bgnats.Process `json:"process"`
}

// CancelInput says which task to cancel.
type CancelInput struct {
	ID     string `json:"id"`
	Reason string `json:"reason,omitempty"` // reason of the cancellation, in one line
}

// ResumeInput says how to resume a task.
type ResumeInput struct {
	ID     string `json:"id"`
	Prompt string `json:"prompt,omitempty"` // prompt of the new attempt; empty for the prompt of the latest attempt
	Model  string `json:"model,omitempty"`  // model from the new attempt on; empty keeps the model
}

// SendInput is a message to a task.
type SendInput struct {
	ID   string `json:"id"`
	Key  string `json:"key,omitempty"`
	Text string `json:"text"`
	Now  bool   `json:"now,omitempty"`
}

// AnswerInput is the answer to a task's question.
type AnswerInput struct {
	ID     string `json:"id"`
	Key    string `json:"key"`
	Option string `json:"option"`
}

// ForgetInput says which ended tasks to delete.
type ForgetInput struct {
	IDs   []string `json:"ids"`             // ids of at most MaxForget tasks
	Force bool     `json:"force,omitempty"` // delete the tasks even if they are still needed
}

// MaxForget is the maximum number of tasks that one request can delete.
const MaxForget = 100

// ForgetResult reports the outcome of deleting the tasks in a ForgetInput.
type ForgetResult struct {
	Deleted int      `json:"deleted"`          // number of tasks that are no longer in the store
	Needed  []string `json:"needed,omitempty"` // reasons for keeping tasks that have not ended or are still needed
	Failed  []string `json:"failed,omitempty"` // what went wrong with the other tasks
}

// LogInput asks for part of a task's log.
type LogInput struct {
	ID   string `json:"id"`
	From int64  `json:"from"` // offset in bytes
}

// LogPart is part of a task's log.
type LogPart struct {
	Text  string `json:"text"`  // empty at the end of the log
	Next  int64  `json:"next"`  // offset of the part that follows
	Ended bool   `json:"ended"` // the task had ended before the part was read, so nothing follows an empty part
}

// Error is an error returned by the server.
type Error struct {
	Text  string `json:"error"`
	Input bool   `json:"input,omitempty"` // the request was invalid, or named a task that does not exist
}

// Error implements error.
func (e *Error) Error() string { return e.Text }
