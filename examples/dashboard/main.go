// Command dashboard serves the dashboard's page on loopback, with a demo scene. In the scene,
// a few sessions keep delegating tasks to agents. The agents are Go functions that only
// pretend to work and do not use a model.
//
//	go run ./examples/dashboard [-addr HOST:PORT] [-speed N] [-for D]
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/dashboard"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	switch err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "dashboard:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("dashboard", flag.ContinueOnError)
	flags.SetOutput(stderr)
	addr := flags.String("addr", "127.0.0.1:8420", "address to listen on; port 0 picks a free one")
	speed := flags.Float64("speed", 1, "speed of the scene, as a multiple of real time")
	limit := flags.Duration("for", 0, "how long to run; 0 means until interrupted")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *speed <= 0 {
		return fmt.Errorf("-speed must be more than 0, not %v", *speed)
	}
	if *limit > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, *limit)
		defer cancel()
	}
	s, err := newScene(*speed)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", *addr)
	if err != nil {
		return errors.Join(err, s.close())
	}
	return errors.Join(serve(ctx, listener, s, stdout), s.close())
}

// The function "serve" shows the scene until ctx ends.
func serve(ctx context.Context, listener net.Listener, s *scene, stdout io.Writer) error {
	page := dashboard.New(s.m, dashboard.Config{Title: "bgagent", AllowCancel: true, AllowResume: true})
	mux := http.NewServeMux()
	mux.Handle("/tasks/", page)
	mux.Handle("/", http.RedirectHandler("/tasks/", http.StatusFound))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	server.RegisterOnShutdown(page.Close) // otherwise, Shutdown would wait until all pages are closed

	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	fmt.Fprintf(stdout, "http://%s/tasks/\n", listener.Addr())
	s.play(ctx)
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	err := server.Shutdown(closing)
	if e := <-served; !errors.Is(e, http.ErrServerClosed) {
		err = errors.Join(err, e)
	}
	fmt.Fprintf(stdout, "%d tasks were launched\n", len(s.m.List(bgagent.Query{})))
	return err
}
