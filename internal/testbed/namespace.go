//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"unsafe"
)

// inside is the name under which the testbed runs itself in the namespace.
const inside = "testbed-inside"

const capNetAdmin = 12 // CAP_NET_ADMIN, linux/capability.h

// isolate runs the testbed with the arguments in a new network namespace, as
// the same user, and returns its exit code. Some of the servers listen on all
// interfaces whatever they are told: in the namespace the only interface is
// loopback. Whoever may not make one gets a user namespace with it, in which
// no other user exists.
func isolate(args []string) (int, error) {
	command := func(user bool) *exec.Cmd {
		cmd := exec.Command("/proc/self/exe")
		cmd.Args = append([]string{inside}, args...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWNET,
			AmbientCaps: []uintptr{capNetAdmin},
			Pdeathsig:   syscall.SIGTERM,
		}
		if user {
			cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
			cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getuid(), HostID: os.Getuid(), Size: 1}}
			cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getgid(), HostID: os.Getgid(), Size: 1}}
		}
		return cmd
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	cmd := command(false)
	err := cmd.Start()
	if err != nil {
		cmd = command(true)
		err = cmd.Start()
	}
	if err != nil {
		return 0, fmt.Errorf("cannot make a user and network namespace: %w: "+
			"the kernel or a container forbids it (sysctl kernel.unprivileged_userns_clone, kernel.apparmor_restrict_unprivileged_userns, user.max_user_namespaces)", err)
	}
	go func() {
		for sig := range signals {
			if sig == syscall.SIGTERM { // an interrupt from the terminal reaches all by itself
				cmd.Process.Signal(sig)
			}
		}
	}()
	return exitCode(cmd, cmd.Wait())
}

// loopback brings the interface lo of the namespace up.
func loopback() error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	request := struct { // struct ifreq, netdevice(7)
		name  [syscall.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}{flags: syscall.IFF_UP}
	copy(request.name[:], "lo")
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), syscall.SIOCSIFFLAGS, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return fmt.Errorf("cannot bring up loopback in the network namespace: %w", errno)
	}
	return nil
}
