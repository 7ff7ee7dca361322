package sqlite

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// localFileSystem returns an error if the folder is on a network file system, because locks and
// shared memory do not work reliably there.
func localFileSystem(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("sqlite: the file system of %s cannot be examined: %w", dir, err)
	}
	names := map[uint32]string{
		unix.NFS_SUPER_MAGIC: "NFS", unix.SMB_SUPER_MAGIC: "SMB", unix.SMB2_SUPER_MAGIC: "SMB", unix.CIFS_SUPER_MAGIC: "CIFS",
		unix.AFS_SUPER_MAGIC: "AFS", unix.CODA_SUPER_MAGIC: "Coda",
	}
	if name := names[uint32(st.Type)]; name != "" {
		return fmt.Errorf("sqlite: %s is on a network file system (%s), where the locks of a store do not work; use a local disk", dir, name)
	}
	return nil
}
