"""The sentences that `make_tickets` builds support tickets from: by intent and language, those of the test file apart.

`{item}` is a thing that was bought, `{order}` an order number, `{date}` a day. No sentence of `TEST` stands in `TRAIN`.
"""

from __future__ import annotations

from typing import Final

Phrases = dict[str, dict[str, tuple[str, ...]]]

ITEMS: Final[dict[str, tuple[str, ...]]] = {
    "en": ("headphones", "coffee grinder", "desk lamp", "running shoes", "backpack", "rain jacket", "keyboard", "kettle"),
    "de": ("Kopfhörer", "Kaffeemühle", "Schreibtischlampe", "Laufschuhe", "Rucksack", "Regenjacke", "Tastatur", "Wasserkocher"),
    "es": ("auriculares", "molinillo", "lámpara", "zapatillas", "mochila", "chaqueta", "teclado", "hervidor"),
}
DATES: Final[dict[str, tuple[str, ...]]] = {
    "en": ("last Monday", "on Friday", "two weeks ago", "yesterday", "on May 3"),
    "de": ("letzten Montag", "am Freitag", "vor zwei Wochen", "gestern", "am 3. Mai"),
    "es": ("el lunes pasado", "el viernes", "hace dos semanas", "ayer", "el 3 de mayo"),
}
# (openings, closings) of the training file and of the test file.
FRAMES: Final[dict[str, dict[str, tuple[tuple[str, ...], tuple[str, ...]]]]] = {
    "train": {
        "en": (("Hi,", "Hello,", "Good morning,", "Dear team,", "", ""), ("Thanks!", "Best, Tom", "Please help.", "Kind regards", "", "")),
        "de": (("Hallo,", "Guten Tag,", "Liebes Team,", ""), ("Danke!", "Viele Grüße", "Bitte um Hilfe.", "")),
        "es": (("Hola,", "Buenos días,", "Estimado equipo,", ""), ("¡Gracias!", "Un saludo", "Ayuda, por favor.", "")),
    },
    "test": {
        "en": (("Hey there,", "To whom it may concern,", ""), ("Cheers", "I look forward to your reply.", "")),
        "de": (("Moin,", "Sehr geehrte Damen und Herren,", ""), ("Mit besten Grüßen", "Ich warte auf Antwort.", "")),
        "es": (("Buenas tardes,", "A quien corresponda,", ""), ("Quedo a la espera.", "Atentamente", "")),
    },
}

TRAIN: Final[Phrases] = {
    "refund_request": {
        "en": (
            "I sent the {item} back {date} and I want my money back.",
            "The {item} arrived broken, please refund order {order}.",
            "When will I get the refund for order {order}?",
            "I am not happy with the {item} and would like a full refund.",
            "The {item} is not as described, I want to return it and be refunded.",
            "Please give me back what I paid for the {item}.",
            "I returned order {order} {date} but no refund has reached me.",
            "How can I return the {item} and get my money?",
        ),
        "de": (
            "ich habe die Ware ({item}) {date} zurückgeschickt und möchte mein Geld zurück.",
            "der Artikel ({item}) kam kaputt an, bitte erstatten Sie Bestellung {order}.",
            "wann kommt die Rückerstattung für Bestellung {order}?",
            "ich bin unzufrieden ({item}) und will den vollen Betrag zurück.",
            "wie kann ich den Artikel zurückgeben und mein Geld bekommen?",
        ),
        "es": (
            "devolví el producto ({item}) {date} y quiero mi dinero de vuelta.",
            "el artículo ({item}) llegó roto, por favor reembolsen el pedido {order}.",
            "¿cuándo llega el reembolso del pedido {order}?",
            "no estoy contento con la compra ({item}) y quiero la devolución completa.",
            "¿cómo puedo devolver el artículo y recuperar el dinero?",
        ),
    },
    "order_status": {
        "en": (
            "Where is my order {order}? I bought it {date}.",
            "My {item} should have been here {date}, where is the parcel?",
            "Can you tell me when order {order} will be delivered?",
            "The tracking of {order} has not moved since {date}.",
            "Has the {item} been shipped yet?",
            "I am still waiting for the {item}, what is the delivery date?",
            "Is there any news about the parcel of order {order}?",
            "How long does the delivery of the {item} take?",
        ),
        "de": (
            "wo bleibt meine Bestellung {order}? Ich habe {date} bestellt.",
            "wann wird das Paket ({item}) geliefert?",
            "die Sendungsverfolgung von {order} steht seit Tagen still.",
            "wurde der Artikel ({item}) schon verschickt?",
            "ich warte immer noch auf die Lieferung von Bestellung {order}.",
        ),
        "es": (
            "¿dónde está mi pedido {order}? Lo compré {date}.",
            "¿cuándo llega el paquete ({item})?",
            "el seguimiento del envío {order} no cambia desde hace días.",
            "¿ya han enviado el producto ({item})?",
            "sigo esperando la entrega del pedido {order}.",
        ),
    },
    "cancel_order": {
        "en": (
            "Please cancel order {order}, I no longer need it.",
            "I ordered the {item} by mistake {date}, can you cancel it?",
            "I want to cancel my order {order} before it is sent.",
            "Stop the order of the {item}, I changed my mind.",
            "How do I cancel the order that I placed {date}?",
            "I clicked twice, please cancel one of the two orders ({order}).",
            "I found the {item} elsewhere, so cancel my order please.",
            "Do not ship {order}, I would like to cancel.",
        ),
        "de": (
            "bitte stornieren Sie Bestellung {order}, ich brauche sie nicht mehr.",
            "ich habe {date} aus Versehen bestellt ({item}), bitte stornieren.",
            "ich möchte meine Bestellung {order} vor dem Versand stornieren.",
            "wie kann ich die Bestellung ({item}) stornieren?",
            "bitte nicht verschicken, ich storniere {order}.",
        ),
        "es": (
            "por favor cancelen el pedido {order}, ya no lo necesito.",
            "compré por error ({item}) {date}, ¿pueden cancelar el pedido?",
            "quiero cancelar mi pedido {order} antes del envío.",
            "¿cómo cancelo la compra ({item})?",
            "no envíen {order}, quiero cancelar el pedido.",
        ),
    },
    "change_address": {
        "en": (
            "I moved {date}, please send order {order} to my new address.",
            "Can I change the delivery address of order {order}?",
            "The street number in my address is wrong, please correct it.",
            "Please deliver the {item} to my office, not to my home.",
            "How do I update the shipping address in my account?",
            "I typed the wrong postcode for the {item}.",
            "My new address is 12 Hill Road, please use it for {order}.",
            "We are moving house, where can I change the address?",
        ),
        "de": (
            "ich bin {date} umgezogen, bitte senden Sie {order} an die neue Adresse.",
            "kann ich die Lieferadresse von Bestellung {order} ändern?",
            "die Hausnummer in meiner Adresse ist falsch, bitte korrigieren.",
            "bitte liefern Sie ({item}) ins Büro, nicht nach Hause.",
            "wo ändere ich die Anschrift in meinem Konto?",
        ),
        "es": (
            "me mudé {date}, envíen {order} a mi nueva dirección, por favor.",
            "¿puedo cambiar la dirección de entrega del pedido {order}?",
            "el número de la calle en mi dirección es incorrecto, corríjanlo.",
            "entreguen el producto ({item}) en la oficina, no en casa.",
            "¿dónde cambio la dirección en mi cuenta?",
        ),
    },
    "login_problem": {
        "en": (
            "I cannot log in since {date}, the password is not accepted.",
            "I forgot my password and the reset e-mail never comes.",
            "My account is locked after too many attempts.",
            "The login page says wrong user name, but it is right.",
            "The code for signing in does not reach my phone.",
            "How do I reset my password?",
            "I have no access to my account any more.",
            "Logging in fails with the message unknown user.",
        ),
        "de": (
            "ich kann mich seit {date} nicht anmelden, das Passwort wird abgelehnt.",
            "ich habe mein Passwort vergessen und bekomme keine E-Mail.",
            "mein Konto ist nach zu vielen Versuchen gesperrt.",
            "der Code für die Anmeldung kommt nicht an.",
            "wie setze ich mein Passwort zurück?",
        ),
        "es": (
            "no puedo iniciar sesión desde {date}, no acepta la contraseña.",
            "olvidé mi contraseña y el correo no llega.",
            "mi cuenta está bloqueada por demasiados intentos.",
            "el código para entrar no llega a mi teléfono.",
            "¿cómo restablezco mi contraseña?",
        ),
    },
    "billing_error": {
        "en": (
            "I was charged twice for order {order}.",
            "The invoice of {date} shows a wrong amount.",
            "My card was debited for the {item}, but more than the price.",
            "The discount code was not taken off my bill for {order}.",
            "There is a charge {date} that I do not know.",
            "Please correct the tax on invoice {order}.",
            "Why is the bill for the {item} higher than in the shop?",
            "You took the payment for {order} two times.",
        ),
        "de": (
            "mir wurde Bestellung {order} doppelt berechnet.",
            "auf der Rechnung ({date}) steht ein falscher Betrag.",
            "von meiner Karte wurde für den Artikel ({item}) zu viel abgebucht.",
            "der Rabatt fehlt auf der Rechnung {order}.",
            "es gibt {date} eine Abbuchung, die ich nicht kenne.",
        ),
        "es": (
            "me cobraron dos veces el pedido {order}.",
            "la factura ({date}) tiene un importe incorrecto.",
            "cargaron de más en mi tarjeta por el artículo ({item}).",
            "falta el descuento en la factura {order}.",
            "hay un cargo {date} que no conozco.",
        ),
    },
    "bug_report": {
        "en": (
            "The app crashes when I open the cart.",
            "Since {date} the search page stays white.",
            "The button for paying does nothing in my browser.",
            "Your website shows error 500 when I look at the {item}.",
            "Pictures of the {item} do not load in the app.",
            "After the update {date} the app freezes at start.",
            "The filter on your website is broken, it shows nothing.",
            "The page jumps to the top each time I scroll, this is a bug.",
        ),
        "de": (
            "die App stürzt ab, wenn ich den Warenkorb öffne.",
            "seit {date} bleibt die Suchseite weiß.",
            "der Knopf zum Bezahlen tut im Browser nichts.",
            "die Webseite zeigt Fehler 500 ({item}).",
            "nach dem Update {date} friert die App ein.",
        ),
        "es": (
            "la aplicación se cierra cuando abro el carrito.",
            "desde {date} la página de búsqueda queda en blanco.",
            "el botón de pagar no hace nada en mi navegador.",
            "la web muestra el error 500 ({item}).",
            "tras la actualización {date} la aplicación se congela.",
        ),
    },
    "close_account": {
        "en": (
            "Please close my account and delete my data.",
            "I want to delete my profile, how does it work?",
            "I no longer shop with you, remove my account.",
            "Delete all personal data that you have of me.",
            "How can I close my account for good?",
            "Please erase my account, I do not use it since {date}.",
            "I would like to leave, delete my user profile.",
            "Terminate my membership and close the account.",
        ),
        "de": (
            "bitte schließen Sie mein Konto und löschen Sie meine Daten.",
            "ich möchte mein Profil löschen, wie geht das?",
            "ich kaufe nicht mehr bei Ihnen, löschen Sie mein Konto.",
            "löschen Sie alle persönlichen Daten von mir.",
            "wie kann ich mein Konto endgültig schließen?",
        ),
        "es": (
            "por favor cierren mi cuenta y borren mis datos.",
            "quiero eliminar mi perfil, ¿cómo se hace?",
            "ya no compro con ustedes, eliminen mi cuenta.",
            "borren todos los datos personales que tienen de mí.",
            "¿cómo puedo cerrar mi cuenta para siempre?",
        ),
    },
}

TEST: Final[Phrases] = {
    "refund_request": {
        "en": (
            "The {item} was faulty from day one. Transfer the purchase price back to me, I already returned it.",
            "Your courier picked up my return {date}, yet the refund is still missing.",
        ),
        "de": ("die Rücksendung kam bei Ihnen {date} an, aber das Geld wurde noch nicht erstattet ({item}).",),
        "es": ("la mercancía ({item}) tenía un defecto y la he devuelto; espero el reembolso del importe.",),
    },
    "order_status": {
        "en": (
            "Nothing has been delivered so far although {order} was promised for {date}.",
            "Could you check where the package with the {item} is at the moment?",
        ),
        "de": ("können Sie nachsehen, wo sich das Paket zu {order} gerade befindet?",),
        "es": ("me prometieron la entrega ({item}) para {date} y el paquete no ha llegado.",),
    },
    "cancel_order": {
        "en": (
            "I have just bought the {item}, but I made a mistake; is it still possible to cancel?",
            "Kindly call off purchase {order}; I will not be needing it, so cancel it today.",
        ),
        "de": ("ich habe es mir anders überlegt, bitte die Bestellung vom Artikel ({item}) stornieren.",),
        "es": ("he cambiado de idea, anulen y cancelen el pedido ({item}), por favor.",),
    },
    "change_address": {
        "en": (
            "We live somewhere else now: the parcel {order} must go to a different address.",
            "I noticed a typo in the address I gave for the {item}; the town is wrong.",
        ),
        "de": ("das Paket {order} soll an eine andere Adresse gehen, wir wohnen jetzt woanders.",),
        "es": ("ahora vivimos en otro sitio: el paquete {order} debe ir a otra dirección.",),
    },
    "login_problem": {
        "en": (
            "Signing in is impossible, my password does not work although I reset it {date}.",
            "I am locked out: the website rejects my user name and password.",
        ),
        "de": ("das Anmelden klappt nicht, obwohl ich das Passwort {date} geändert habe.",),
        "es": ("me resulta imposible entrar en mi cuenta, la contraseña ya no funciona.",),
    },
    "billing_error": {
        "en": (
            "According to my bank statement you debited the {item} two times.",
            "The total on the invoice does not match what was agreed; {order} was billed too high.",
        ),
        "de": ("laut Kontoauszug haben Sie den Betrag für {order} zweimal abgebucht.",),
        "es": ("según mi banco, ustedes cobraron dos veces el importe de {order}.",),
    },
    "bug_report": {
        "en": (
            "Whenever I tap on the {item}, the app closes by itself.",
            "On my phone the website is blank and an error message pops up at checkout.",
        ),
        "de": ("die Webseite lädt nicht richtig, es erscheint immer eine Fehlermeldung ({item}).",),
        "es": ("la página no carga bien en mi móvil, aparece siempre un mensaje de error ({item}).",),
    },
    "close_account": {
        "en": (
            "Kindly remove everything you store about me and shut down my profile.",
            "I have decided to stop being a customer: please delete the account today.",
        ),
        "de": ("ich will kein Kunde mehr sein, bitte entfernen Sie mein Konto samt Daten.",),
        "es": ("no quiero seguir siendo cliente; supriman mi cuenta y todos mis datos.",),
    },
}
