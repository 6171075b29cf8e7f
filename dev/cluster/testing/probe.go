// The program in the image that test.sh runs in pods.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: probe serve ADDRESS | get URL | write FILE | burn SECONDS")
		os.Exit(2)
	}
	var err error
	switch argument := os.Args[2]; os.Args[1] {
	case "serve":
		err = serve(argument)
	case "get":
		err = get(argument)
	case "write":
		err = os.WriteFile(argument, []byte("written\n"), 0o600)
	case "burn":
		err = burn(argument)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "probe:", err)
		os.Exit(1)
	}
}

// serve answers every request with the name of the pod.
func serve(address string) error {
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	fmt.Println("serving on", address)
	return http.ListenAndServe(address, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, name)
	}))
}

func get(url string) error {
	client := http.Client{Timeout: 3 * time.Second}
	response, err := client.Get(url)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, err = io.Copy(os.Stdout, response.Body)
	return err
}

// burn keeps two processors busy and prints how much of one it was given, in
// thousandths, once the first second's burst is over.
func burn(seconds string) error {
	duration, err := strconv.Atoi(seconds)
	if err != nil {
		return err
	}
	runtime.GOMAXPROCS(2)
	for range 2 {
		go func() {
			for {
			}
		}()
	}
	time.Sleep(time.Second)
	before, start := used(), time.Now()
	time.Sleep(time.Duration(duration) * time.Second)
	fmt.Println("millicores", int64(1000*(used()-before)/time.Since(start)))
	return nil
}

// used is the processor time that this process has had.
func used() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
