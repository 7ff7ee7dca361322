package modelserver_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/bgagent/bgagent/internal/modelserver"
)

// The last user message of a request is the script for the model's answer.
func Example() {
	model := modelserver.New(nil)
	defer model.Close()
	resp, err := http.Post(model.URL+"/v1/messages", "application/json",
		strings.NewReader(`{"model":"any","max_tokens":100,"messages":[{"role":"user","content":"@usage 10 2\n@say hello"}]}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	fmt.Printf("%s%v\n", body, err)
	// Output:
	// {"content":[{"text":"hello","type":"text"}],"id":"msg_2","model":"any","role":"assistant","stop_reason":"end_turn","stop_sequence":null,"type":"message","usage":{"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"input_tokens":10,"output_tokens":2}}
	// <nil>
}

// A test can control the model. This test holds the turns of three agents open, counts the
// open turns, and then releases them.
func ExampleServer_WaitFor() {
	release := make(chan struct{})
	model := modelserver.New(func(r modelserver.Request) modelserver.Reply {
		if r.Kind != modelserver.Main {
			return r.Scripted() // answers a request for a title or another side question
		}
		select {
		case <-release:
		case <-r.Context().Done():
		}
		return modelserver.Say("you said " + r.LastUser())
	})
	defer model.Close()
	answers := make(chan string)
	for range 3 {
		go func() {
			resp, err := http.Post(model.URL+"/v1/responses", "", strings.NewReader(`{"input":"hello"}`))
			if err == nil {
				err = resp.Body.Close()
			}
			answers <- fmt.Sprint(err)
		}()
	}
	err := model.WaitFor(context.Background(), func(all []modelserver.Request) bool { return len(all) == 3 })
	fmt.Println("open:", model.Open(nil), err)
	close(release)
	fmt.Println(<-answers, <-answers, <-answers)
	fmt.Println("at most:", model.MaxOpen(nil, nil), "all:", len(model.Requests()))
	// Output:
	// open: 3 <nil>
	// <nil> <nil> <nil>
	// at most: 3 all: 3
}
