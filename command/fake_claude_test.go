//go:build unix

package command

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// fakeClaude simulates Claude Code and asks questions. The lines of its prompt are instructions:
//
//	ask COMMAND     asks for permission to run the command; the answer contains the response
//	send LINE       prints a line
//	hear N          reads N responses; the answer contains them
//	many            asks a thousand times
//	huge            asks with a subject that exceeds the limit
//	list ID N       asks with a list of N short texts
//	rest            waits for the end of its input and exits
//	hang            never ends
type fakeClaude struct {
	in  *bufio.Scanner
	say []string
}

func playClaude() {
	f := &fakeClaude{in: bufio.NewScanner(os.Stdin)}
	f.in.Buffer(nil, 16<<20)
	f.in.Scan()
	var prompt struct{ Message struct{ Content string } }
	if err := json.Unmarshal(f.in.Bytes(), &prompt); err != nil {
		panic(err)
	}
	fmt.Println(`{"type":"system","subtype":"init","session_id":"s"}`)
	for line := range strings.Lines(prompt.Message.Content) {
		f.do(strings.TrimSpace(line))
	}
	text := jsonString(strings.Join(f.say, " "))
	fmt.Printf(`{"type":"assistant","message":{"id":"m","content":[{"type":"text","text":%s}]},"session_id":"s"}`+"\n", text)
	fmt.Printf(`{"type":"result","subtype":"success","is_error":false,"result":%s,"stop_reason":"end_turn","session_id":"s"}`+"\n", text)
	for f.in.Scan() { // the program exits when its input ends
	}
}

func (f *fakeClaude) do(line string) {
	verb, rest, _ := strings.Cut(line, " ")
	switch verb {
	case "ask":
		fmt.Printf(`{"type":"control_request","request_id":"r","request":{"subtype":"can_use_tool","tool_name":"Bash","input":{"command":%s}}}`+"\n", jsonString(rest))
		f.hear()
	case "send":
		fmt.Println(rest)
	case "hear":
		n := 0
		_, _ = fmt.Sscan(rest, &n)
		for range n {
			f.hear()
		}
	case "many":
		for i := range 1000 {
			fmt.Printf(`{"type":"control_request","request_id":"r%d","request":{"subtype":"can_use_tool","tool_name":"Bash","input":{"command":"rm %d"}}}`+"\n", i, i)
		}
	case "huge":
		fmt.Printf(`{"type":"control_request","request_id":"huge","request":{"subtype":"can_use_tool","tool_name":"Bash","input":{"command":%s}}}`+"\n", jsonString(strings.Repeat("x", 100<<10)))
	case "list":
		id, n := "", 0
		_, _ = fmt.Sscan(rest, &id, &n)
		fmt.Printf(`{"type":"control_request","request_id":"%s","request":{"subtype":"can_use_tool","tool_name":"Bash","input":{"list":["x"%s]}}}`+"\n", id, strings.Repeat(`,"x"`, n))
	case "rest":
		for f.in.Scan() {
		}
		os.Exit(0)
	case "hang":
		block()
	}
}

// The method "hear" reads a response.
func (f *fakeClaude) hear() {
	if !f.in.Scan() {
		block() // waits to be stopped
	}
	var x struct {
		Response struct {
			ID       string `json:"request_id"`
			Error    string
			Response struct {
				Behavior, Message string
				UpdatedInput      struct{ Answers map[string]string }
			}
		}
	}
	if err := json.Unmarshal(f.in.Bytes(), &x); err != nil {
		panic(err)
	}
	text := x.Response.ID + ": " + x.Response.Response.Behavior + x.Response.Error + " " + x.Response.Response.Message
	for _, label := range x.Response.Response.UpdatedInput.Answers {
		text += strconv.Quote(label)
	}
	f.say = append(f.say, strings.TrimSpace(text)+";")
}
