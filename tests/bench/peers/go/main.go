// A token operator on controller-runtime: one reconcile and one PATCH a session, and nothing else.
//
// It reads these variables: KUBECONFIG, OIDC_TOKEN_URL, OIDC_CLIENT_ID, OIDC_CLIENT_SECRET,
// PEER_PREFIX (the Secret of a session is PEER_PREFIX + "session-<id>-creds"), PEER_LABEL (name=value,
// on those Secrets) and PEER_WORKERS. It writes one JSON object a line on standard error, with "event"
// and "timestamp": synced, runner_token_refreshed (the first write alone), startup_resync_finished.
package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

const (
	prefix       = "ambient-code.io/"
	sessionLabel = prefix + "session-id"
	fieldManager = "token-reconciler"
	minRemaining = 0.8 // of a token's life: with less left, the issuer is asked for a new one
	refreshAt    = 0.4 // of a token's life: age at which a Secret gets a new token
)

var version = "unknown" // set by the linker

func main() {
	if len(os.Args) > 1 && os.Args[1] == "--version" {
		fmt.Println(version)
		return
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	ctrl.SetLogger(logr.Discard())
	config, err := ctrl.GetConfig()
	if err != nil {
		return err
	}
	config.QPS = -1 // no client-side limit
	workers, err := strconv.Atoi(os.Getenv("PEER_WORKERS"))
	if err != nil {
		return fmt.Errorf("PEER_WORKERS: %w", err)
	}
	peerLabel, err := labels.Parse(os.Getenv("PEER_LABEL"))
	if err != nil {
		return fmt.Errorf("PEER_LABEL: %w", err)
	}
	ofSession, err := labels.Parse(sessionLabel)
	if err != nil {
		return err
	}
	running, err := fields.ParseSelector("status.phase!=Succeeded,status.phase!=Failed")
	if err != nil {
		return err
	}
	mgr, err := ctrl.NewManager(config, manager.Options{
		Metrics: server.Options{BindAddress: "0"},
		Cache: cache.Options{ByObject: map[client.Object]cache.ByObject{
			metadata("Pod"):    {Label: ofSession, Field: running},
			metadata("Secret"): {Label: peerLabel},
		}},
	})
	if err != nil {
		return err
	}
	operator := &operator{
		client: mgr.GetClient(), prefix: os.Getenv("PEER_PREFIX"), tokens: newTokenSource(),
	}
	err = ctrl.NewControllerManagedBy(mgr).
		Named("peer").
		WatchesMetadata(&corev1.Pod{}, &handler.EnqueueRequestForObject{}).
		WatchesMetadata(&corev1.Secret{}, handler.EnqueueRequestsFromMapFunc(podOf)).
		WithOptions(controller.Options{MaxConcurrentReconciles: workers}).
		Complete(operator)
	if err != nil {
		return err
	}
	err = mgr.Add(manager.RunnableFunc(func(ctx context.Context) error {
		return operator.noteSynced(ctx, mgr.GetCache())
	}))
	if err != nil {
		return err
	}
	return mgr.Start(ctrl.SetupSignalHandler())
}

func metadata(kind string) *metav1.PartialObjectMetadata {
	object := &metav1.PartialObjectMetadata{}
	object.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind(kind))
	return object
}

// podOf returns the request for the pod of a Secret's session.
func podOf(_ context.Context, secret client.Object) []reconcile.Request {
	name := fmt.Sprintf("session-%s-runner", shortened(secret))
	return []reconcile.Request{{
		NamespacedName: types.NamespacedName{Namespace: secret.GetNamespace(), Name: name},
	}}
}

// shortened returns the session's ID as it is in names of objects.
func shortened(object client.Object) string {
	id := strings.ToLower(object.GetLabels()[sessionLabel])
	return id[:min(len(id), 40)]
}

type operator struct {
	client   client.Client
	prefix   string
	tokens   *tokenSource
	written  sync.Map     // names of the pods whose Secret was written since the start
	count    atomic.Int64 // entries of written
	expected atomic.Int64 // pods at the start; 0 until the caches are synced
	finished sync.Once
	syncedAt time.Time
}

// noteSynced logs when the caches have their first lists.
func (o *operator) noteSynced(ctx context.Context, synced cache.Cache) error {
	if !synced.WaitForCacheSync(ctx) {
		return ctx.Err()
	}
	pods := &metav1.PartialObjectMetadataList{}
	pods.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("PodList"))
	if err := o.client.List(ctx, pods, client.UnsafeDisableDeepCopy); err != nil {
		return err
	}
	o.syncedAt = time.Now()
	event("synced", map[string]any{"pods": len(pods.Items)})
	o.expected.Store(int64(len(pods.Items)))
	o.noteFinished()
	return nil
}

func (o *operator) noteFinished() {
	expected, count := o.expected.Load(), o.count.Load()
	if expected == 0 || count < expected {
		return
	}
	o.finished.Do(func() {
		seconds := time.Since(o.syncedAt).Seconds()
		event("startup_resync_finished", map[string]any{"refreshed": count, "seconds": seconds})
	})
}

// Reconcile writes a session's token once after the start and whenever it is due.
func (o *operator) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	pod := metadata("Pod")
	if err := o.client.Get(ctx, request.NamespacedName, pod); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	secret := metadata("Secret")
	name := fmt.Sprintf("%ssession-%s-creds", o.prefix, shortened(pod))
	if err := o.client.Get(ctx, types.NamespacedName{Namespace: pod.Namespace, Name: name}, secret); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err) // its event queues the pod
	}
	now := time.Now()
	if _, wrote := o.written.Load(request.NamespacedName); wrote {
		if due := dueAt(secret); due.After(now) {
			return ctrl.Result{RequeueAfter: due.Sub(now)}, nil
		}
	}
	token, err := o.tokens.get(ctx, now)
	if err != nil {
		return ctrl.Result{}, err
	}
	if err := o.write(ctx, secret, token, now); err != nil {
		if apierrors.IsConflict(err) { // the cache is behind: its event queues the pod
			return ctrl.Result{}, nil
		}
		return ctrl.Result{}, err
	}
	if _, wrote := o.written.LoadOrStore(request.NamespacedName, struct{}{}); !wrote {
		if o.count.Add(1) == 1 {
			event("runner_token_refreshed", nil)
		}
		o.noteFinished()
	}
	return ctrl.Result{RequeueAfter: dueAt(secret).Sub(now)}, nil
}

// write patches the Secret if it is still the version that the cache has.
func (o *operator) write(ctx context.Context, secret *metav1.PartialObjectMetadata, token token, now time.Time) error {
	body, err := json.Marshal(map[string]any{
		"metadata": map[string]any{
			"uid":             secret.UID,
			"resourceVersion": secret.ResourceVersion,
			"annotations": map[string]string{
				prefix + "token-issued-at":    token.issued.UTC().Format(time.RFC3339),
				prefix + "token-expires-at":   token.expires.UTC().Format(time.RFC3339),
				prefix + "token-refreshed-at": now.UTC().Format("2006-01-02T15:04:05.000Z07:00"),
				prefix + "token-refreshed-by": "controller-runtime peer",
			},
		},
		"data": map[string]string{"api-token": base64.StdEncoding.EncodeToString([]byte(token.value))},
	})
	if err != nil {
		return err
	}
	patch := client.RawPatch(types.MergePatchType, body)
	return o.client.Patch(ctx, secret, patch, client.FieldOwner(fieldManager))
}

// dueAt spreads the refreshes: at age 0.4 of the token's life, give or take a quarter of that.
func dueAt(secret *metav1.PartialObjectMetadata) time.Time {
	issued, err := time.Parse(time.RFC3339, secret.Annotations[prefix+"token-issued-at"])
	if err != nil {
		return time.Time{}
	}
	expires, err := time.Parse(time.RFC3339, secret.Annotations[prefix+"token-expires-at"])
	if err != nil {
		return time.Time{}
	}
	hash := fnv.New32a()
	hash.Write([]byte(secret.UID))
	share := refreshAt * (0.75 + 0.5*float64(hash.Sum32())/(1<<32))
	return issued.Add(time.Duration(share * float64(expires.Sub(issued))))
}

type token struct {
	value           string
	issued, expires time.Time
}

// tokenSource keeps one token of the issuer's for all sessions.
type tokenSource struct {
	url  string
	form url.Values
	mu   sync.Mutex
	held token
}

func newTokenSource() *tokenSource {
	return &tokenSource{url: os.Getenv("OIDC_TOKEN_URL"), form: url.Values{
		"grant_type":    {"client_credentials"},
		"client_id":     {os.Getenv("OIDC_CLIENT_ID")},
		"client_secret": {os.Getenv("OIDC_CLIENT_SECRET")},
	}}
}

func (s *tokenSource) get(ctx context.Context, now time.Time) (token, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	life := float64(s.held.expires.Sub(s.held.issued))
	if s.held.value != "" && float64(s.held.expires.Sub(now)) >= minRemaining*life {
		return s.held, nil
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, strings.NewReader(s.form.Encode()))
	if err != nil {
		return token{}, err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return token{}, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return token{}, fmt.Errorf("the issuer answers %s", response.Status)
	}
	var answer struct {
		Token     string  `json:"access_token"`
		ExpiresIn float64 `json:"expires_in"`
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return token{}, err
	}
	lasts := time.Duration(answer.ExpiresIn * float64(time.Second))
	s.held = token{value: answer.Token, issued: now, expires: now.Add(lasts)}
	return s.held, nil
}

// event writes one line of the log.
func event(name string, fields map[string]any) {
	line := map[string]any{"event": name, "timestamp": time.Now().UTC().Format(time.RFC3339Nano)}
	for key, value := range fields {
		line[key] = value
	}
	encoded, err := json.Marshal(line)
	if err != nil {
		panic(err)
	}
	os.Stderr.Write(append(encoded, '\n'))
}
