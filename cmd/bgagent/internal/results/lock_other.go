//go:build !unix

package results

import "os"

// lock reports that the folder is this run's alone: nobody can tell.
func lock(*os.File) bool { return true }
