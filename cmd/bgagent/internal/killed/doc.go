// Package killed contains a test that kills processes whose tasks run in real agent programs.
package killed
