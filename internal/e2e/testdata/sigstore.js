// Verifies Sigstore bundles with sigstore-js, which shares no code with what
// made them.
//
// Standard input is JSON: root, a trusted root; cases, a list of {bundle,
// identity: {san, issuer}} or {bundle, key: DER in base64, end: RFC 3339 or
// nothing}. Every case demands a timestamp and a log entry, and no SCT.
// The answer is a list in the same order: "" or why the bundle is refused.
'use strict';
const fs = require('fs');
const {bundleFromJSON} = require('@sigstore/bundle');
const {TrustedRoot} = require('@sigstore/protobuf-specs');
const {Verifier, toSignedEntity, toTrustMaterial} = require('@sigstore/verify');

const {root, cases} = JSON.parse(fs.readFileSync(0));
console.log(JSON.stringify(cases.map(({bundle, identity, key, end}) => {
  try {
    const keys = () => ({
      publicKey: require('crypto').createPublicKey({key: Buffer.from(key, 'base64'), format: 'der', type: 'spki'}),
      validFor: date => !end || date <= new Date(end),
    });
    const verifier = new Verifier(toTrustMaterial(TrustedRoot.fromJSON(root), keys), {ctlogThreshold: 0});
    const policy = identity && {subjectAlternativeName: identity.san, extensions: {issuer: identity.issuer}};
    const signer = verifier.verify(toSignedEntity(bundleFromJSON(bundle)), policy);
    return !identity === !signer.identity ? '' : 'signed the other way';
  } catch (e) {
    return e.message || String(e);
  }
})));
