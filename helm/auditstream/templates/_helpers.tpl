{{- define "auditstream.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "auditstream.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "auditstream.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "auditstream.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: auditstream
{{- end -}}

{{- define "auditstream.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default .Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "auditstream.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "auditstream.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* The components that are there, each over the defaults. fromYaml of it is {name: component}. */}}
{{- define "auditstream.components" -}}
{{- range $name, $own := .Values.components }}
{{- $component := mergeOverwrite (deepCopy $.Values.componentDefaults) (deepCopy $own) }}
{{- if $component.enabled }}
{{ $name }}:
{{- toYaml $component | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Seconds from SIGTERM to SIGKILL: the drain deadline, rounded up, and what ends behind it. */}}
{{- define "auditstream.gracePeriod" -}}
{{- $section := dig .component.section dict .root.Values.config -}}
{{- $deadline := dig "drain_deadline_ms" .component.drainDeadlineMs $section -}}
{{- add (div (add (int64 $deadline) 999) 1000) (int64 .component.graceSeconds) -}}
{{- end -}}

{{/* Most pods of a component: never more than partitions, if it reads from the topic. */}}
{{- define "auditstream.maxReplicas" -}}
{{- $partitions := int .root.Values.topic.partitions -}}
{{- $wanted := int .component.autoscaling.maxReplicas -}}
{{- if eq $wanted 0 -}}{{ $partitions }}
{{- else if eq .component.section "consumer" -}}{{ min $wanted $partitions }}
{{- else -}}{{ $wanted }}
{{- end -}}
{{- end -}}

{{/* The configuration file. JSON's strings, numbers and booleans are TOML's, too. */}}
{{- define "auditstream.toml" -}}
{{- range $section, $keys := .Values.config }}
{{- if $keys }}
[{{ $section }}]
{{- range $key, $value := $keys }}
{{- if not (kindIs "map" $value) }}
{{ $key }} = {{ toJson $value }}
{{- end }}
{{- end }}
{{- range $key, $table := $keys }}
{{- if kindIs "map" $table }}
[{{ $section }}.{{ $key }}]
{{- range $name, $value := $table }}
{{ $name | quote }} = {{ toJson $value }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* What each name in `secrets` is: the key of the configuration that it sets. */}}
{{- define "auditstream.secretKeys" -}}
kafkaSaslPassword: KAFKA__SASL_PASSWORD
kafkaSslKeyPassword: KAFKA__SSL_KEY_PASSWORD
clickhousePassword: CLICKHOUSE__PASSWORD
clickhouseAdminPassword: CLICKHOUSE__PASSWORD
clickhouseAnalystPassword: CLICKHOUSE__PASSWORD
registryPassword: SCHEMA__REGISTRY_PASSWORD
outboxUrl: OUTBOX__URL
{{- end -}}

{{/* Where one secret is: {name, key}, or nothing when it is not set. In a hook before the release is there, what the chart makes has another name. */}}
{{- define "auditstream.secret" -}}
{{- $secret := get .root.Values.secrets .name -}}
{{- $external := .root.Values.externalSecrets -}}
{{- if $secret.existingSecret }}
name: {{ $secret.existingSecret }}
key: {{ default .name $secret.key }}
{{- else if $secret.value }}
name: {{ include "auditstream.fullname" .root }}{{ ternary "-migrate" "" .hook }}
key: {{ .name }}
{{- else if and $external.enabled (hasKey $external.data .name) }}
name: {{ include "auditstream.fullname" .root }}{{ ternary "-migrate" "" .hook }}-external
key: {{ .name }}
{{- end }}
{{- end -}}

{{/* `tls`, with what cert-manager makes: {kafka, clickhouse, registry}. Takes root and hook. */}}
{{- define "auditstream.tls" -}}
{{- $tls := deepCopy .root.Values.tls -}}
{{- range $use := list "kafka" "clickhouse" -}}
{{- if and $.root.Values.certManager.enabled (get $.root.Values.certManager $use) -}}
{{- $name := printf "%s%s-%s-client" (include "auditstream.fullname" $.root) (ternary "-migrate" "" $.hook) $use -}}
{{- $made := dict "secretName" $name "ca" "ca.crt" "certificate" "tls.crt" "key" "tls.key" -}}
{{- $tls = set $tls $use $made -}}
{{- end -}}
{{- end -}}
{{- toYaml $tls -}}
{{- end -}}

{{/* What the migration needs is made before it, and gone behind it: no object of the release is there yet. */}}
{{- define "auditstream.hook" -}}
helm.sh/hook: pre-install,pre-upgrade
helm.sh/hook-weight: "-10"
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end -}}
