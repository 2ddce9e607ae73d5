//! `derive(Audited)` for auditstream-producer; its documentation is there, in the module `audited`.

use proc_macro2::TokenStream;
use quote::quote;
use syn::spanned::Spanned;
use syn::{Attribute, Data, DeriveInput, Error, Field, Fields, LitStr, Result, parse_macro_input};

/// Implements `Audited`: see `auditstream_producer::audited`.
#[proc_macro_derive(Audited, attributes(audit))]
pub fn derive_audited(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand(&input).unwrap_or_else(Error::into_compile_error).into()
}

fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let Data::Struct(data) = &input.data else {
        return Err(Error::new(input.span(), "Audited is for structs with named fields"));
    };
    let Fields::Named(fields) = &data.fields else {
        return Err(Error::new(input.span(), "Audited is for structs with named fields"));
    };
    let (mut entity, mut id) = (None, None);
    each_attribute(&input.attrs, |meta| {
        if meta.path.is_ident("entity") {
            entity = Some(meta.value()?.parse::<LitStr>()?);
        } else if meta.path.is_ident("id") {
            id = Some(meta.value()?.parse::<LitStr>()?);
        } else {
            return Err(meta.error("of a type there are `entity` and `id`"));
        }
        Ok(())
    })?;
    let missing = |what| Error::new(input.ident.span(), format!("say which: #[audit({what} = \"...\")]"));
    let entity = entity.ok_or_else(|| missing("entity"))?;
    let id = id.ok_or_else(|| missing("id"))?;
    if entity.value().is_empty() {
        return Err(Error::new(entity.span(), "the entity's type is empty"));
    }

    let mut names: Vec<String> = Vec::new();
    let (mut entries, mut redacted) = (Vec::new(), Vec::new());
    let mut id_field = None;
    for field in &fields.named {
        let Some(ident) = &field.ident else { continue };
        let plain = ident.to_string();
        let plain = plain.strip_prefix("r#").unwrap_or(&plain);
        let rules = FieldRules::of(field)?;
        if plain == id.value() {
            id_field = Some(ident);
            if rules.redact.is_some() {
                return Err(Error::new(
                    field.span(),
                    "the entity's id can't be redacted: the event carries it as its key",
                ));
            }
        }
        if rules.skip {
            continue;
        }
        let name = rules.rename.unwrap_or_else(|| plain.to_owned());
        if names.contains(&name) {
            return Err(Error::new(field.span(), format!("two fields are called `{name}`")));
        }
        entries.push(quote! { map.serialize_entry(#name, &self.#ident)?; });
        redacted.extend(rules.redact.map(|action| {
            quote! { (#name, ::auditstream_producer::redaction::Action::#action) }
        }));
        names.push(name);
    }
    let Some(id_field) = id_field else {
        return Err(Error::new(id.span(), format!("there is no field `{}`", id.value())));
    };
    let name = &input.ident;
    let (impl_generics, type_generics, where_clause) = input.generics.split_for_impl();
    let count = entries.len();
    Ok(quote! {
        #[automatically_derived]
        impl #impl_generics ::auditstream_producer::audited::Audited for #name #type_generics #where_clause {
            const ENTITY_TYPE: &'static str = #entity;
            const REDACTED: &'static [(&'static str, ::auditstream_producer::redaction::Action)] = &[#(#redacted),*];

            fn entity_id(&self) -> ::std::string::String {
                ::std::string::ToString::to_string(&self.#id_field)
            }

            fn serialize_fields<S: ::auditstream_producer::audited::__serde::Serializer>(
                &self,
                serializer: S,
            ) -> ::std::result::Result<S::Ok, S::Error> {
                use ::auditstream_producer::audited::__serde::ser::SerializeMap as _;
                #[allow(unused_mut)]
                let mut map = serializer.serialize_map(::std::option::Option::Some(#count))?;
                #(#entries)*
                map.end()
            }
        }
    })
}

/// What stands at a field.
#[derive(Default)]
struct FieldRules {
    skip: bool,
    rename: Option<String>,
    /// The variant of `Action`.
    redact: Option<TokenStream>,
}

impl FieldRules {
    fn of(field: &Field) -> Result<FieldRules> {
        let mut rules = FieldRules::default();
        each_attribute(&field.attrs, |meta| {
            if meta.path.is_ident("skip") {
                rules.skip = true;
            } else if meta.path.is_ident("rename") {
                rules.rename = Some(meta.value()?.parse::<LitStr>()?.value());
            } else if meta.path.is_ident("redact") {
                let action: LitStr = meta.value()?.parse()?;
                rules.redact = Some(match action.value().as_str() {
                    "drop" => quote!(Drop),
                    "mask" => quote!(Mask),
                    "hmac" => quote!(Hmac),
                    _ => return Err(Error::new(action.span(), "redact is \"drop\", \"mask\" or \"hmac\"")),
                });
            } else {
                return Err(meta.error("of a field there are `skip`, `rename` and `redact`"));
            }
            Ok(())
        })?;
        Ok(rules)
    }
}

fn each_attribute(
    attributes: &[Attribute],
    mut visit: impl FnMut(syn::meta::ParseNestedMeta<'_>) -> Result<()>,
) -> Result<()> {
    attributes.iter().filter(|a| a.path().is_ident("audit")).try_for_each(|a| a.parse_nested_meta(&mut visit))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    fn refused(source: &str) -> String {
        expand(&syn::parse_str(source).unwrap()).unwrap_err().to_string()
    }

    #[test]
    fn wrong_attributes_are_named() {
        let order = |of_type: &str, fields: &str| format!("#[audit({of_type})] struct Order {{ {fields} }}");
        let good = "entity = \"order\", id = \"id\"";
        for (of_type, fields, expected) in [
            ("id = \"id\"", "id: u64", "entity = "),
            ("entity = \"order\"", "id: u64", "id = "),
            ("entity = \"\", id = \"id\"", "id: u64", "empty"),
            ("entity = \"order\", id = \"key\"", "id: u64", "no field `key`"),
            ("entity = \"order\", ids = \"id\"", "id: u64", "`entity` and `id`"),
            (good, "#[audit(redact = \"mask\")] id: u64", "can't be redacted"),
            (good, "id: u64, #[audit(redact = \"hash\")] a: u64", "\"drop\", \"mask\" or \"hmac\""),
            (good, "id: u64, #[audit(hide)] a: u64", "`skip`, `rename` and `redact`"),
            (good, "id: u64, a: u64, #[audit(rename = \"a\")] b: u64", "two fields"),
        ] {
            let error = refused(&order(of_type, fields));
            assert!(error.contains(expected), "{error}");
        }
        assert!(refused("enum Order { A }").contains("structs"));
        assert!(refused("struct Order(u64);").contains("structs"));
        expand(&syn::parse_str(&order(good, "#[audit(skip)] id: u64, #[audit(rename = \"x\")] r#type: u64")).unwrap())
            .unwrap();
    }
}
