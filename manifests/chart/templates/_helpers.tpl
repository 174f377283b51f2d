{{- define "token-reconciler.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/*
52 characters, so that "-dashboard" fits into the 63 of a label. A release may have dots in its name, a
Service may not.
*/}}
{{- define "token-reconciler.fullname" -}}
{{- $name := include "token-reconciler.name" . }}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) }}
{{- .Values.fullnameOverride | default $full | replace "." "-" | trunc 52 | trimSuffix "-" }}
{{- end }}

{{- define "token-reconciler.account" -}}
{{- if .Values.serviceAccount.create }}
{{- .Values.serviceAccount.name | default (include "token-reconciler.fullname" .) }}
{{- else }}
{{- required "serviceAccount.name is required where serviceAccount.create is false" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/*
A selector of a Deployment cannot change. That of kustomize's installations has the name alone, so
that a release that is called like them takes their Deployment over.
*/}}
{{- define "token-reconciler.selectorLabels" -}}
app.kubernetes.io/name: {{ include "token-reconciler.name" . | quote }}
{{- if ne (include "token-reconciler.fullname" .) (include "token-reconciler.name" .) }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}
{{- end }}

{{/*
The Deployments: one, or one for each shard. A list of objects with the suffix of the name, and the
shard's number and the number of shards, or no number where there is one Deployment alone.
*/}}
{{- define "token-reconciler.deployments" -}}
{{- $count := int .Values.shards.count }}
{{- if or (eq $count 1) .Values.shards.keepSingle }}
- suffix: ""
{{- end }}
{{- if gt $count 1 }}
{{- range $index := until $count }}
- suffix: "-{{ $index }}"
  shard: "{{ $index }}"
{{- end }}
{{- end }}
{{- end }}

{{- define "token-reconciler.podLabels" -}}
app.kubernetes.io/name: {{ include "token-reconciler.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: controller
app.kubernetes.io/part-of: ambient-code
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "token-reconciler.labels" -}}
{{ include "token-reconciler.podLabels" . }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "token-reconciler.image" -}}
{{- with .Values.image }}
{{- if .digest }}
{{- printf "%s@%s" .repository .digest }}
{{- else }}
{{- printf "%s:%s" .repository (.tag | default $.Chart.AppVersion) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "token-reconciler.leaseName" -}}
{{- get .Values.settings "RECONCILER_LEASE_NAME" | default "token-reconciler" }}
{{- end }}

{{/* The Leases: of the one Deployment, which leads until the shards do, and of each shard. */}}
{{- define "token-reconciler.leaseNames" -}}
{{- $name := include "token-reconciler.leaseName" . }}
{{- $names := list $name }}
{{- $count := int .Values.shards.count }}
{{- if gt $count 1 }}
{{- range $index := until $count }}
{{- $names = append $names (printf "%s-%d" $name $index) }}
{{- end }}
{{- end }}
{{- toJson $names }}
{{- end }}

{{/*
Fail where another installation in the namespace has one of our Leases: one of the two would never
write. Two Leases for the same sessions would be worse, so that the names do not follow the release.
A Role lets each installation, by Helm or by kustomize, patch its Leases by name; one for people who
read a Lease does not. `lookup` finds nothing in `helm template`.
*/}}
{{- define "token-reconciler.refuseSharedLease" -}}
{{- $leases := include "token-reconciler.leaseNames" . | fromJsonArray }}
{{- $ours := printf "%s-lease" (include "token-reconciler.fullname" .) }}
{{- range $role := (lookup "rbac.authorization.k8s.io/v1" "Role" .Release.Namespace "").items }}
{{- $release := dig "annotations" "meta.helm.sh/release-name" "" $role.metadata }}
{{- if and (ne $role.metadata.name $ours) (ne $release $.Release.Name) }}
{{- range $rule := $role.rules }}
{{- range $name := $rule.resourceNames }}
{{- if and (has "leases" $rule.resources) (has "patch" $rule.verbs) (has $name $leases) }}
{{- $who := ternary (printf "The release %s" $release) (printf "The installation with the Role %s" $role.metadata.name) (ne $release "") }}
{{- fail (printf "%s in the namespace %s has the Lease %s, too: one of the two would never write a token. Uninstall it first, or install %s into another namespace (docs/install.md, \"A second installation\")." $who $.Release.Namespace $name $.Release.Name) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "token-reconciler.caConfigMap" -}}
{{- .Values.privateCA.configMap | default (printf "%s-ca" (include "token-reconciler.fullname" .)) }}
{{- end }}

{{/* The ConfigMap's data: `settings`, and what other values imply. */}}
{{- define "token-reconciler.settings" -}}
{{- $settings := dict }}
{{- if eq .Values.rights.scope "namespaces" }}
{{- $_ := set $settings "RECONCILER_NAMESPACES" (join "," .Values.rights.namespaces) }}
{{- end }}
{{- if .Values.projectAccount.secretName }}
{{- $_ := set $settings "PROJECT_KUBE_TOKEN_FILE" "/var/run/secrets/project-kube/token" }}
{{- end }}
{{- range $name, $value := dict "HTTP_PROXY" .Values.proxy.http "HTTPS_PROXY" .Values.proxy.https "NO_PROXY" .Values.proxy.noProxy }}
{{- if $value }}
{{- $_ := set $settings $name $value }}
{{- end }}
{{- end }}
{{- range $name, $value := merge (deepCopy .Values.settings) $settings }}
{{- /* A number of a file is a float, of which toString makes 1e+06. */}}
{{ $name }}: {{ kindIs "string" $value | ternary $value (toJson $value) | quote }}
{{- end }}
{{- end }}

{{/* The rights on sessions; the same in a ClusterRole and in a Role. */}}
{{- define "token-reconciler.sessionRules" -}}
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, patch]
- apiGroups: [""]
  resources: [secrets]
  verbs: [list, watch, create, patch]
- apiGroups: [""]
  resources: [events]
  verbs: [create, patch]
{{- end }}

{{- define "token-reconciler.subjects" -}}
- kind: ServiceAccount
  name: {{ include "token-reconciler.account" . | quote }}
  namespace: {{ .Release.Namespace | quote }}
{{- end }}
