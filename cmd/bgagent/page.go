package main

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net/http"

	"github.com/bgagent/bgagent/dashboard"
)

// pageFlags contains the flags that decide whether "bgagent serve" shows the page, and who may see it.
type pageFlags struct {
	Page     string `placeholder:"VARIABLE" help:"The environment variable, or @FILE, that holds the page's password of at least 16 bytes (any user name will do). Without it the page is shown only if there are no tokens, to everybody on this machine."`
	PageActs bool   `help:"Everybody who sees the page may cancel and resume tasks and answer their questions; with --page, they may also grant permissions."`
}

// page returns the page that shows the tasks of all callers, and a handler that serves the page and checks
// the password, if there is one. If nobody may see the page, both results are nil.
func (f pageFlags) page(ctx context.Context, s *serving, tokens bool, secret *secrets) (*dashboard.Handler, http.Handler, error) {
	if f.Page == "" && tokens {
		if f.PageActs {
			return nil, nil, fmt.Errorf("--page-acts: if callers have tokens, the page needs a password; name its environment variable with --page VARIABLE")
		}
		return nil, nil, nil
	}
	cfg := dashboard.Config{AllowCancel: f.PageActs, AllowResume: f.PageActs, AllowAnswer: f.PageActs, AllowPermit: f.PageActs && f.Page != "", Silent: s.silent(), Log: s.log()}
	if s.cluster != nil {
		cfg.Process, cfg.Others = s.cluster.Self().Name, pageOthers{s.cluster}
	}
	page := dashboard.New(s.manager, cfg)
	if f.Page == "" {
		return page, page, nil
	}
	password, err := untilStopped(ctx, func() (string, error) { return secret.read("--page "+f.Page, f.Page, "password") })
	if err != nil {
		return nil, nil, err
	}
	return page, withPassword(password, page), nil
}

// withPassword returns a handler that passes a request to h only if the request
// contains the password.
func withPassword(password string, h http.Handler) http.Handler {
	want := sha256.Sum256([]byte(password))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, password, _ := r.BasicAuth()
		if got := sha256.Sum256([]byte(password)); subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			w.Header().Set("WWW-Authenticate", `Basic realm="bgagent", charset="UTF-8"`)
			http.Error(w, "the page needs the password that --page names", http.StatusUnauthorized)
			return
		}
		h.ServeHTTP(w, r)
	})
}
