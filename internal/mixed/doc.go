// Package mixed contains tests of managers whose tasks run in several real agent programs at the same time.
package mixed
