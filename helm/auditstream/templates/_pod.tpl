{{/*
The one pod template of every component, of the migration and of the test.
Takes root, name, component, and: hook (whether it runs before the release is there), restartPolicy, containers (further ones go in front as init containers).
*/}}
{{- define "auditstream.pod" -}}
{{- $root := .root -}}
{{- $component := .component -}}
{{- $fullname := include "auditstream.fullname" $root -}}
{{- $own := ternary (printf "%s-migrate" $fullname) $fullname .hook -}}
{{- /* Whether it reads the Secret that the chart makes of values. */}}
{{- $inline := false -}}
{{- range $name := $component.secrets -}}
{{- $found := fromYaml (include "auditstream.secret" (dict "root" $root "name" $name "hook" $.hook)) -}}
{{- if eq (toString $found.name) $own -}}{{- $inline = true -}}{{- end -}}
{{- end -}}
metadata:
  labels:
    {{- include "auditstream.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ .name }}
    {{- with $component.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    checksum/config: {{ include "auditstream.toml" $root | sha256sum }}
    {{- if $inline }}
    # A new value reaches the pods with the next upgrade. No hash of it: who may read pods could try passwords against that.
    auditstream/secrets-of-revision: {{ $root.Release.Revision | quote }}
    {{- end }}
    {{- with $component.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ if and .hook $root.Values.serviceAccount.create }}{{ $own }}{{ else }}{{ include "auditstream.serviceAccount" $root }}{{ end }}
  automountServiceAccountToken: false
  # Otherwise a Service called auditstream would set variables that look like settings.
  enableServiceLinks: false
  {{- with .restartPolicy }}
  restartPolicy: {{ . }}
  {{- end }}
  terminationGracePeriodSeconds: {{ include "auditstream.gracePeriod" (dict "root" $root "component" $component) }}
  securityContext:
    {{- toYaml $root.Values.podSecurityContext | nindent 4 }}
  {{- with $root.Values.image.pullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $component.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with $component.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $component.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if not .restartPolicy }}
  affinity:
    {{- if $component.affinity }}
    {{- toYaml $component.affinity | nindent 4 }}
    {{- else }}
    podAntiAffinity:
      preferredDuringSchedulingIgnoredDuringExecution:
        - weight: 100
          podAffinityTerm:
            topologyKey: kubernetes.io/hostname
            labelSelector:
              matchLabels:
                {{- include "auditstream.selector" $root | nindent 16 }}
                app.kubernetes.io/component: {{ .name }}
    {{- end }}
  {{- with $component.topologySpread }}
  topologySpreadConstraints:
    {{- range . }}
    - {{- toYaml . | nindent 6 }}
      labelSelector:
        matchLabels:
          {{- include "auditstream.selector" $root | nindent 10 }}
          app.kubernetes.io/component: {{ $.name }}
    {{- end }}
  {{- end }}
  {{- end }}
  {{- with .init }}
  initContainers:
    - {{- include "auditstream.container" (merge . (dict "root" $root)) | nindent 6 }}
  {{- end }}
  containers:
    - {{- include "auditstream.container" . | nindent 6 }}
  volumes:
    - name: config
      configMap:
        name: {{ $own }}
    {{- $sources := include "auditstream.secretSources" . }}
    {{- if $sources }}
    - name: secrets
      projected:
        # For the group of the pod, which is fsGroup.
        defaultMode: 0440
        sources:
          {{- $sources | nindent 10 }}
    {{- end }}
    {{- range $use, $tls := fromYaml (include "auditstream.tls" (dict "root" $root "hook" $.hook)) }}
    {{- if and $tls.secretName (has $use $component.connects) }}
    - name: tls-{{ $use }}
      secret:
        secretName: {{ $tls.secretName }}
        defaultMode: 0440
    {{- end }}
    {{- end }}
    {{- if $root.Values.kafkaToken.enabled }}
    - name: kafka-token
      projected:
        defaultMode: 0440
        sources:
          - serviceAccountToken:
              audience: {{ $root.Values.kafkaToken.audience | quote }}
              expirationSeconds: {{ $root.Values.kafkaToken.expirationSeconds | int64 }}
              path: token
    {{- end }}
{{- end -}}

{{/* One container of a pod: root, name, component, and what `auditstream.pod` takes. */}}
{{- define "auditstream.container" -}}
{{- $root := .root -}}
{{- $component := .component -}}
{{- $served := and $component.section (not .restartPolicy) -}}
name: {{ .name }}
image: {{ include "auditstream.image" $root | quote }}
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
args:
  {{- toYaml $component.args | nindent 2 }}
securityContext:
  {{- toYaml $root.Values.securityContext | nindent 2 }}
env:
  - name: AUDITSTREAM_CONFIG
    value: /etc/auditstream/auditstream.toml
  {{- if $served }}
  - name: AUDITSTREAM_{{ upper $component.section }}__HTTP_LISTEN
    value: "0.0.0.0:{{ int $component.port }}"
  {{- end }}
  {{- if $component.staticMembership }}
  - name: AUDITSTREAM_CONSUMER__GROUP_INSTANCE_ID
    valueFrom:
      fieldRef:
        fieldPath: metadata.name
  {{- end }}
  {{- if $component.persistence.enabled }}
  - name: AUDITSTREAM_PRODUCER__SPILL_FOLDER
    value: {{ $component.persistence.mountPath }}/spill
  {{- end }}
  {{- $keys := fromYaml (include "auditstream.secretKeys" .) }}
  {{- range $name := $component.secrets }}
  {{- $found := fromYaml (include "auditstream.secret" (dict "root" $root "name" $name "hook" $.hook)) }}
  {{- if $found.name }}
  {{- if eq $root.Values.secrets.as "env" }}
  - name: AUDITSTREAM_{{ get $keys $name }}
    valueFrom:
      secretKeyRef:
        name: {{ $found.name }}
        key: {{ $found.key }}
  {{- else }}
  - name: AUDITSTREAM_{{ get $keys $name }}_FILE
    value: /run/secrets/auditstream/{{ $name }}
  {{- end }}
  {{- end }}
  {{- end }}
  {{- range $use, $tls := fromYaml (include "auditstream.tls" (dict "root" $root "hook" $.hook)) }}
  {{- if and $tls.secretName (has $use $component.connects) }}
  {{- $prefix := get (dict "kafka" "KAFKA__SSL_" "clickhouse" "CLICKHOUSE__" "registry" "SCHEMA__REGISTRY_") $use }}
  {{- range $what := list "ca" "certificate" "key" }}
  {{- with get $tls $what }}
  - name: AUDITSTREAM_{{ $prefix }}{{ upper $what }}_LOCATION
    value: /run/secrets/tls-{{ $use }}/{{ . }}
  {{- end }}
  {{- end }}
  {{- end }}
  {{- end }}
  {{- if $root.Values.kafkaToken.enabled }}
  - name: AUDITSTREAM_KAFKA__SASL_OAUTH_TOKEN_FILE
    value: /run/secrets/kafka-token/token
  {{- end }}
  {{- range $name, $value := $component.env }}
  - name: {{ $name }}
    value: {{ if kindIs "string" $value }}{{ $value | quote }}{{ else }}{{ toJson $value | quote }}{{ end }}
  {{- end }}
  {{- with $component.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
resources:
  {{- toYaml $component.resources | nindent 2 }}
{{- if $served }}
ports:
  - name: http
    containerPort: {{ int $component.port }}
# Answers as soon as the program runs, also while it waits for its servers.
startupProbe:
  httpGet: {path: {{ $component.probes.live }}, port: http}
  periodSeconds: 2
  timeoutSeconds: 5
  failureThreshold: 30
# Alive means that the loop comes round, not that the servers are up: a restart would not bring them back.
livenessProbe:
  httpGet: {path: {{ $component.probes.live }}, port: http}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
readinessProbe:
  httpGet: {path: {{ $component.probes.ready }}, port: http}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 3
{{- end }}
volumeMounts:
  - name: config
    mountPath: /etc/auditstream
    readOnly: true
  {{- if include "auditstream.secretSources" . }}
  - name: secrets
    mountPath: /run/secrets/auditstream
    readOnly: true
  {{- end }}
  {{- range $use, $tls := fromYaml (include "auditstream.tls" (dict "root" $root "hook" $.hook)) }}
  {{- if and $tls.secretName (has $use $component.connects) }}
  - name: tls-{{ $use }}
    mountPath: /run/secrets/tls-{{ $use }}
    readOnly: true
  {{- end }}
  {{- end }}
  {{- if $root.Values.kafkaToken.enabled }}
  - name: kafka-token
    mountPath: /run/secrets/kafka-token
    readOnly: true
  {{- end }}
  {{- if $component.persistence.enabled }}
  - name: data
    mountPath: {{ $component.persistence.mountPath }}
  {{- end }}
{{- end -}}

{{/* The secrets of a component as sources of a projected volume; nothing when there are none, or they are variables. */}}
{{- define "auditstream.secretSources" -}}
{{- if ne .root.Values.secrets.as "env" -}}
{{- range $name := .component.secrets }}
{{- $found := fromYaml (include "auditstream.secret" (dict "root" $.root "name" $name "hook" $.hook)) }}
{{- if $found.name }}
- secret:
    name: {{ $found.name }}
    items:
      - {key: {{ $found.key | quote }}, path: {{ $name }}}
{{- end }}
{{- end }}
{{- end -}}
{{- end -}}
