// Package e2e tests the dashboard's page in a real browser, headless Chromium. The tests
// control the browser with chromedp. chromedp implements the DevTools protocol itself, has a
// release every few weeks to keep up with Chromium, and needs no program other than the
// browser. The alternative, go-rod, has had no release since July 2024, and downloads its own
// browser by default. The package is a separate module, so that users of the page do not
// depend on chromedp.
//
// .ci/chromium installs the browser on Debian. Tests without a browser are skipped.
// If BGAGENT_REAL_AGENTS=require is set, as in .ci/run, they fail instead. With
// BGAGENT_REAL_AGENTS=skip or go test -short, they are skipped even if there is a browser.
//
// This command makes the pictures in docs/images:
//
//	go test ./dashboard/e2e -run TestPictures -e2e.pictures
//
// The pictures whose names begin with "glance" are made by a test of cmd/bgagent, which runs a test of this
// package on the page of a real server:
//
//	go test ./cmd/bgagent -run TestThreeHosts -picture
package e2e
