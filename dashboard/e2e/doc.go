// Package e2e tests the dashboard's page in a real browser, headless Chromium,
// which chromedp drives: it speaks the DevTools protocol itself, has releases
// every few weeks that follow Chromium's, and needs no program but the browser.
// (go-rod, the other library, has had no release since July 2024 and downloads a
// browser of its own unless it is told not to.) It is a module of its own, so that
// none of this reaches whoever uses the page.
//
// .ci/chromium installs the browser on Debian. A test whose browser is missing is
// skipped, unless the environment says BGAGENT_REAL_AGENTS=require, as .ci/run
// does: then it fails. BGAGENT_REAL_AGENTS=skip and go test -short skip the tests
// too.
//
// The pictures in docs/images are made with
//
//	go test ./dashboard/e2e -run TestPictures -e2e.pictures
package e2e
