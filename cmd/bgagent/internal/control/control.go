// Package control lets commands in a terminal look at and control a running "bgagent serve".
//
// The server listens on a port of its own on loopback and writes the address and a secret token
// into a file beside its store. Only the user can read the file. This needs no further names and
// works in the same way on all systems: the path of a Unix socket could be longer than the system
// allows, and Windows protects such sockets differently. A separate port keeps these requests away
// from other machines, from reverse proxies, and from the callers, tokens and passwords of the
// server.
//
// The file contains the instance id of the server. If another instance owns the store, the file is
// left over from a killed server, and nothing is sent to its address.
//
// But another program can have this address: in a container, 127.0.0.1 is not that of the host. So
// each connection begins with a question that only a program with the token can answer, and the
// client sends the token and the requests only after the right answer.
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
)

// fileName is the name of the file with the address, in the folder of the store.
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
	_ = os.Remove(part) // a file that exists would keep its mode
	if err := os.WriteFile(part, append(b, '\n'), 0o600); err != nil {
		return err
	}
	return os.Rename(part, path)
}

// read reads the file. The second result is false if there is none.
func read(dir string) (a address, found bool, err error) {
	b, err := os.ReadFile(filepath.Join(dir, fileName))
	if errors.Is(err, fs.ErrNotExist) {
		return a, false, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &a)
	}
	if err == nil {
		host, _, _ := net.SplitHostPort(a.Address)
		if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
			err = fmt.Errorf("the address %q in %s is not on this machine", a.Address, fileName)
		}
	}
	return a, err == nil, err
}

// challenge is the question with which each connection begins. Its nonce is random.
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
	MCP    string        `json:"mcp"`              // address of the tools
	Page   string        `json:"page,omitempty"`   // address of the page; empty if it is not shown
	Silent time.Duration `json:"silent,omitempty"` // time after which a task that works counts as silent, in nanoseconds; 0 means never
}

// Status describes what a server does.
type Status struct {
	Info
	Pools []bgagent.PoolStats `json:"pools"`
	Tasks []bgagent.Task      `json:"tasks"` // the tasks that have not ended, without prompts and results
}

// TaskInput names a task by its id or by the id of its session.
type TaskInput struct {
	ID string `json:"id"`
}

// CancelInput says which task is cancelled.
type CancelInput struct {
	ID     string `json:"id"`
	Reason string `json:"reason,omitempty"` // reason of the cancellation, in one line
}

// ResumeInput says how a task is resumed.
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

// AnswerInput is the answer to a question of a task.
type AnswerInput struct {
	ID     string `json:"id"`
	Key    string `json:"key"`
	Option string `json:"option"`
}

// ForgetInput says which ended tasks are deleted.
type ForgetInput struct {
	IDs   []string `json:"ids"`             // ids of at most MaxForget tasks
	Force bool     `json:"force,omitempty"` // delete the tasks even if they are still needed
}

// MaxForget bounds the number of tasks that one request deletes.
const MaxForget = 100

// ForgetResult says what became of the tasks of a ForgetInput.
type ForgetResult struct {
	Deleted int      `json:"deleted"`          // number of tasks that are not in the store any more
	Needed  []string `json:"needed,omitempty"` // why tasks stay that have not ended, or that somebody still needs
	Failed  []string `json:"failed,omitempty"` // what went wrong with the other tasks
}

// LogInput asks for a part of the log of a task.
type LogInput struct {
	ID   string `json:"id"`
	From int64  `json:"from"` // offset in bytes
}

// LogPart is a part of the log of a task.
type LogPart struct {
	Text  string `json:"text"`  // empty at the end of the log
	Next  int64  `json:"next"`  // offset of the part that follows
	Ended bool   `json:"ended"` // the task had ended before the part was read, so nothing follows an empty part
}

// Error is an error that the server has returned.
type Error struct {
	Text  string `json:"error"`
	Input bool   `json:"input,omitempty"` // the request was wrong, or named a task that does not exist
}

// Error implements error.
func (e *Error) Error() string { return e.Text }
