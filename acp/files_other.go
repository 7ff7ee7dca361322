//go:build !unix

package acp

const nonBlocking = 0
