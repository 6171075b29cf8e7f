# Keys and certificates, made anew for every cluster.
#
# Parts of the control plane act as the administrator: who does what is of no
# interest here, and it saves roles and certificates. Only kubelets have
# identities of their own, since the Node authorizer asks for them.

# make_pki [ADDRESS...]: the authorities, the API server and the administrator.
make_pki() {
  local names="DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc" address
  names+=",DNS:kubernetes.default.svc.cluster.local,IP:127.0.0.1,IP:10.96.0.1"
  for address in "$@"; do names+=",IP:$address"; done
  mkdir -p "$STATE/pki"
  chmod 700 "$STATE/pki"
  cat >"$STATE/pki/openssl.conf" <<-END
	[req]
	distinguished_name = none
	[none]
	[ca]
	basicConstraints = critical, CA:true
	keyUsage = critical, keyCertSign, cRLSign, digitalSignature
	subjectKeyIdentifier = hash
	[leaf]
	basicConstraints = critical, CA:false
	keyUsage = critical, digitalSignature
	extendedKeyUsage = serverAuth, clientAuth
	END
  certificate ca /CN=sluice-dev-ca
  certificate front-ca /CN=sluice-dev-front-ca
  certificate front-client /CN=front-proxy-client front-ca
  certificate apiserver /CN=kube-apiserver ca "$names"
  certificate admin /O=system:masters/CN=admin ca
  openssl ecparam -genkey -name prime256v1 -noout -out "$STATE/pki/accounts.key"
}

# certificate FILE SUBJECT [AUTHORITY [NAMES]]: without an authority, one.
certificate() {
  local options=(-extensions ca)
  [[ ! ${3:-} ]] || options=(-extensions leaf -CA "$STATE/pki/$3.crt" -CAkey "$STATE/pki/$3.key")
  [[ ! ${4:-} ]] || options+=(-addext "subjectAltName=$4")
  openssl req -x509 -config "$STATE/pki/openssl.conf" -newkey ec -pkeyopt ec_paramgen_curve:P-256 \
    -noenc -days 3650 -subj "$2" -keyout "$STATE/pki/$1.key" -out "$STATE/pki/$1.crt" \
    "${options[@]}" 2>"$STATE/pki/openssl.log" || die "openssl: $(<"$STATE/pki/openssl.log")"
}

# kubeconfig_for CERTIFICATE SERVER FILE
kubeconfig_for() {
  cat >"$3.part" <<-END
	apiVersion: v1
	kind: Config
	current-context: sluice-$NAME
	contexts:
	- name: sluice-$NAME
	  context: {cluster: sluice-$NAME, user: $1}
	clusters:
	- name: sluice-$NAME
	  cluster:
	    server: $2
	    certificate-authority-data: $(base64 -w0 "$STATE/pki/ca.crt")
	users:
	- name: $1
	  user:
	    client-certificate-data: $(base64 -w0 "$STATE/pki/$1.crt")
	    client-key-data: $(base64 -w0 "$STATE/pki/$1.key")
	END
  chmod 600 "$3.part"
  mv "$3.part" "$3"
}
