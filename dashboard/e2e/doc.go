// Package e2e tests the dashboard's page in a real browser, headless Chromium.
// chromedp drives it: it speaks the DevTools protocol itself, has releases every
// few weeks that follow Chromium's, and needs no program but the browser. The
// alternative, go-rod, has had no release since July 2024 and downloads a browser
// of its own by default. The package is a module of its own, so that users of the
// page do not depend on any of this.
//
// .ci/chromium installs the browser on Debian. Tests without a browser are skipped.
// If BGAGENT_REAL_AGENTS=require is set, as in .ci/run, they fail instead.
// BGAGENT_REAL_AGENTS=skip and go test -short skip them even with a browser.
//
// The pictures in docs/images are made with
//
//	go test ./dashboard/e2e -run TestPictures -e2e.pictures
package e2e
