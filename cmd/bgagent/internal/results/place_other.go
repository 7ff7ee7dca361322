//go:build !linux

package results

// place returns "": this system does not know.
func (f *Folder) place() string { return "" }
