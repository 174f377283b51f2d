package main

import (
	"context"
	"errors"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const tokenFile = "/var/run/secrets/ambient/bot-token"

func bearer(file string) (string, error) {
	token, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) { // opened while the kubelet replaced the directory
		token, err = os.ReadFile(file)
	}
	return "Bearer " + strings.TrimSpace(string(token)), err
}

func call(ctx context.Context, file string, method func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	token, err := bearer(file)
	if err == nil {
		err = method(metadata.AppendToOutgoingContext(ctx, "authorization", token))
	}
	if newest, _ := bearer(file); status.Code(err) == codes.Unauthenticated && newest != token {
		return method(metadata.AppendToOutgoingContext(ctx, "authorization", newest))
	}
	return err
}
