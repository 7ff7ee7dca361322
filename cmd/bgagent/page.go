package main

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net/http"

	"github.com/bgagent/bgagent"
	"github.com/bgagent/bgagent/dashboard"
)

// pageFlags say whether serve shows the page, and to whom.
type pageFlags struct {
	Page     string `placeholder:"VARIABLE" help:"The environment variable, or @FILE, that holds the page's password of at least 16 bytes (the user's name does not matter). Without it the page is shown where no tokens are named: to everybody on this machine."`
	PageActs bool   `help:"Whoever sees the page may cancel and resume tasks."`
}

// page returns what is served beside the tools: nil when nobody may see it. It
// shows the tasks of all callers.
func (f pageFlags) page(m *bgagent.BackgroundManager, tokens bool, secret *secrets) (*dashboard.Handler, http.Handler, error) {
	if f.Page == "" && tokens {
		if f.PageActs {
			return nil, nil, fmt.Errorf("--page-acts: where callers have tokens the page takes a password; name its environment variable with --page VARIABLE")
		}
		return nil, nil, nil
	}
	page := dashboard.New(m, dashboard.Config{AllowCancel: f.PageActs, AllowResume: f.PageActs})
	if f.Page == "" {
		return page, page, nil
	}
	password, err := secret.read("--page "+f.Page, f.Page, "password")
	if err != nil {
		return nil, nil, err
	}
	return page, withPassword(password, page), nil
}

// withPassword asks the browser for a password.
func withPassword(password string, h http.Handler) http.Handler {
	want := sha256.Sum256([]byte(password))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, password, _ := r.BasicAuth()
		if got := sha256.Sum256([]byte(password)); subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			w.Header().Set("WWW-Authenticate", `Basic realm="bgagent", charset="UTF-8"`)
			http.Error(w, "the page takes the password that --page names", http.StatusUnauthorized)
			return
		}
		h.ServeHTTP(w, r)
	})
}
