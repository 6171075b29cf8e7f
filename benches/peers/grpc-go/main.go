// The article's handler on grpc-go with its defaults: a goroutine a stream that reads, a channel of 128, and one
// that takes from the channel and acknowledges.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"os/signal"
	"syscall"

	"google.golang.org/grpc"

	"example.com/sluice-benches/grpc-go/article"
)

// The article's buffer between reading and handling.
const buffer = 128

type handler struct {
	article.UnimplementedHandlerServer
}

func (handler) Handle(stream grpc.BidiStreamingServer[article.Payload, article.Ack]) error {
	payloads := make(chan *article.Payload, buffer)
	acknowledged := make(chan error, 1)
	go func() {
		for payload := range payloads {
			if err := stream.Send(&article.Ack{Sequence: payload.Sequence}); err != nil {
				acknowledged <- err
				return
			}
		}
		acknowledged <- nil
	}()
	for {
		payload, err := stream.Recv()
		if err != nil {
			close(payloads)
			if errors.Is(err, io.EOF) {
				return <-acknowledged
			}
			return err
		}
		select {
		case payloads <- payload:
		case err := <-acknowledged:
			return err
		}
	}
}

func main() {
	address := flag.String("listen", "127.0.0.1:0", "where to listen")
	flag.Parse()
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer()
	article.RegisterHandlerServer(server, handler{})
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	go func() {
		<-signals
		server.Stop()
	}()
	fmt.Println("listening on", listener.Addr())
	if err := server.Serve(listener); err != nil {
		log.Fatal(err)
	}
}
