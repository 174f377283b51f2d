// `runner-example TARGET FILE`: one call for each line of standard input; prints its status code.
package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"runtime"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
)

var version = "unknown" // set by the linker

func main() {
	if len(os.Args) == 2 && os.Args[1] == "--version" {
		fmt.Println(version)
		return
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(target, file string) error {
	runtime.LockOSThread() // the test counts the opens of one thread
	connection, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	push := func(ctx context.Context) error {
		const method = "/ambient.v1.SessionService/PushSessionMessage"
		return connection.Invoke(ctx, method, &emptypb.Empty{}, &emptypb.Empty{})
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		fmt.Println(int(status.Code(call(context.Background(), file, push))))
	}
	return nil
}
