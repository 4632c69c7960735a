{{- /* What the pods of both daemons have in common. */ -}}

{{- define "sidrail.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "sidrail.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- /* startupz: the configuration is read and the listeners are open; livez: the loop turns; readyz: it takes clients. None asks
the application. */ -}}
{{- define "sidrail.probes" -}}
startupProbe:
  httpGet: {path: /startupz, port: admin}
  periodSeconds: 1
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /livez, port: admin}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: admin}
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 2
{{- end -}}

{{- define "sidrail.ports" -}}
- name: admin
  containerPort: {{ include "sidrail.adminPort" . }}
{{- range $i, $port := (include "sidrail.listenerPorts" . | fromJson).ports }}
- name: listener-{{ $i }}
  containerPort: {{ $port }}
{{- end }}
{{- end -}}

{{- define "sidrail.mounts" -}}
- {name: config, mountPath: /etc/sidrail, readOnly: true}
- {name: run, mountPath: /run/sidrail}
{{- range (index .root.Values .component).secrets }}
- {name: secret-{{ . | sha256sum | trunc 12 }}, mountPath: {{ printf "/secrets/%s" . }}, readOnly: true}
{{- end }}
{{- range (index .root.Values .component).configMaps }}
- {name: configmap-{{ . | sha256sum | trunc 12 }}, mountPath: {{ printf "/configmaps/%s" . }}, readOnly: true}
{{- end }}
{{- end -}}

{{- /* Whole directories, never a subPath: a mounted file would not follow its ConfigMap or Secret. */ -}}
{{- define "sidrail.volumes" -}}
- name: config
  configMap:
    name: {{ include "sidrail.component" . }}
- name: run
  emptyDir: {medium: Memory, sizeLimit: 1Mi}
{{- range (index .root.Values .component).secrets }}
- name: secret-{{ . | sha256sum | trunc 12 }}
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- range (index .root.Values .component).configMaps }}
- name: configmap-{{ . | sha256sum | trunc 12 }}
  configMap:
    name: {{ . }}
{{- end }}
{{- end -}}

{{- define "sidrail.podMetadata" -}}
{{- $values := index .root.Values .component -}}
labels: # no version: another chart with the same pods replaces none
  {{- include "sidrail.selector" . | nindent 2 }}
  {{- with .root.Values.commonLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- with $values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
annotations:
  kubectl.kubernetes.io/default-container: {{ .component }}
  {{- if $values.rollOnConfigChange }}
  sidrail/config: {{ include "sidrail.config" . | sha256sum }}
  {{- else }}
  sidrail/restart-options: {{ include "sidrail.restartOptions" . | sha256sum }}
  {{- end }}
  {{- with $values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- define "sidrail.placement" -}}
{{- $values := index .root.Values .component -}}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- range . }}
  - {{- toYaml . | nindent 4 }}
    labelSelector:
      matchLabels:
        {{- include "sidrail.selector" $ | nindent 8 }}
    matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- end }}
{{- end -}}

{{- define "sidrail.env" -}}
- name: POD_IP
  valueFrom:
    fieldRef: {fieldPath: status.podIP}
{{- with (index .root.Values .component).env }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "sidrail.service" -}}
{{- $values := (index .root.Values .component).service -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ include "sidrail.component" . }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "sidrail.labels" . | nindent 4 }}
  {{- with $values.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  type: {{ $values.type }}
  {{- with $values.loadBalancerClass }}
  loadBalancerClass: {{ . }}
  {{- end }}
  {{- with $values.loadBalancerSourceRanges }}
  loadBalancerSourceRanges:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.externalTrafficPolicy }}
  externalTrafficPolicy: {{ . }}
  {{- end }}
  selector:
    {{- include "sidrail.selector" . | nindent 4 }}
  ports:
    {{- range $i, $port := $values.ports }}
    - name: {{ $port.name }}
      port: {{ int $port.port }}
      targetPort: listener-{{ $i }}
      {{- with $port.nodePort }}
      nodePort: {{ int . }}
      {{- end }}
      {{- with $port.appProtocol }}
      appProtocol: {{ . }}
      {{- end }}
    {{- end }}
---
# For Prometheus and people: each pod, ready or not.
apiVersion: v1
kind: Service
metadata:
  name: {{ include "sidrail.component" . }}-admin
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "sidrail.labels" . | nindent 4 }}
    sidrail/port: admin
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  selector:
    {{- include "sidrail.selector" . | nindent 4 }}
  ports:
    - name: admin
      port: {{ include "sidrail.adminPort" . }}
      targetPort: admin
{{- end -}}

{{- define "sidrail.configMap" -}}
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ include "sidrail.component" . }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "sidrail.labels" . | nindent 4 }}
data:
  {{ .component }}.yaml: |
    {{- include "sidrail.config" . | nindent 4 }}
{{- end -}}

{{- define "sidrail.pdb" -}}
{{- $values := index .root.Values .component -}}
{{- if and $values.pdb.enabled (gt (int $values.replicas) 1) -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "sidrail.component" . }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "sidrail.labels" . | nindent 4 }}
spec:
  maxUnavailable: {{ $values.pdb.maxUnavailable }}
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "sidrail.selector" . | nindent 6 }}
{{- end -}}
{{- end -}}
